"""Estimates the time of a training from its number of steps and the time of the first few.

    msr train --data D --config FILE --estimate

Nothing is kept.
"""

import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from transformers import TrainerCallback

from model_training.finetune.run_plan import RunPlan
from model_training.finetune.trainer import fit, rows_per_step

# The first step includes warm-up, so it is not counted.
MEASURED_STEPS = 4


class _Measured(Exception):
    """Ends a training whose steps have been timed."""


class _StepTimes(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    def __init__(self) -> None:
        self.num_steps = 0
        self.seconds: list[float] = []
        self._last = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.num_steps = state.max_steps
        self._last = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
        if len(self.seconds) > MEASURED_STEPS or state.global_step == state.max_steps:
            raise _Measured


def run(plan: RunPlan) -> dict[str, Any]:
    """`rows`, `rows_per_step`, `steps`, `seconds_per_step` and `estimated_seconds` of training.

    Trains for a few steps in a folder that is then removed; validation is not counted. The errors
    are those of `fit`.
    """
    times = _StepTimes()
    silent = replace(plan.config, trackers=(), evaluate_steps=0, patience=0)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        with suppress(_Measured):
            fit(replace(plan, config=silent, callbacks=(times,)), scratch, scratch / "trained")
    seconds = median(times.seconds[1:] or times.seconds)
    return {
        "rows": plan.rows.num_rows,
        "rows_per_step": rows_per_step(plan.config),
        "steps": times.num_steps,
        "seconds_per_step": round(seconds, 4),
        "estimated_seconds": round(seconds * times.num_steps, 1),
    }
