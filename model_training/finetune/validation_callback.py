"""Validation during training: selects the best checkpoint and stops early.

The metric is AUC for SFT and MRR@5 for the stages after it, whose goal is the order at the top of a
user's own candidates. The start adapter is evaluated too, and a stage that does not improve on it
logs a warning.

Every evaluation is followed by a checkpoint, so that the best one is on disk. Checkpoints
hold the state of this callback, so a resumed run stops where an undisturbed one would.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from transformers import Trainer
from transformers.trainer_callback import ExportableState, TrainerCallback

from model_training.finetune.collation import PromptCollator
from model_training.finetune.distributed import is_main
from model_training.finetune.margins import row_margins
from model_training.finetune.run_plan import RunPlan, first_users
from model_training.scoring import metrics

log = structlog.get_logger(__name__)

METRIC = "validation_auc"
METRIC_AFTER_SFT = "validation_mrr@5"


class ValidatesWhileTraining(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Evaluates on validation users every `evaluate_steps` steps and records the best checkpoint.

    The name of this class and its attributes are stored in the trainer's state file.
    """

    def __init__(self, trainer: Any, collate: PromptCollator, plan: RunPlan) -> None:
        """`trainer` gets the metric in its logs; `plan` is the run."""
        self._rows = first_users(plan.validation, plan.config.evaluate_users).to_pylist()
        self._trainer, self._collate, self._plan = trainer, collate, plan
        self._metric = METRIC_AFTER_SFT if plan.stage.starts_from_adapter else METRIC
        self.evaluations_without_gain = 0
        self.at_the_start: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore the state from the checkpoint, or evaluate the start adapter."""
        saved = state.stateful_callbacks[type(self).__name__]["attributes"]
        self.evaluations_without_gain = saved["evaluations_without_gain"]
        self.at_the_start = saved["at_the_start"]
        if self._plan.start_adapter is not None and self.at_the_start is None:
            self.at_the_start = self._measure(kwargs["model"])
            Trainer.log(self._trainer, {f"eval_{self._metric}": self.at_the_start})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Warn if the stage is no better than its start adapter."""
        best, start = state.best_metric, self.at_the_start
        if is_main() and start is not None and best is not None and best <= start:
            log.warning(
                "stage_gained_nothing",
                metric=self._metric,
                at_the_start=round(start, 4),
                best=round(best, 4),
                consequence="the start adapter is as good; keep it, or change learning_rate",
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate every `evaluate_steps` and after the last step; stop after `patience`."""
        config = self._plan.config
        if state.global_step % config.evaluate_steps and state.global_step < state.max_steps:
            return
        found = self._measure(kwargs["model"])
        if state.best_metric is None or found > state.best_metric:
            state.best_metric, state.best_global_step = found, state.global_step
            self.evaluations_without_gain = 0
        else:
            self.evaluations_without_gain += 1
        # The base class's log: TRL's would reset its averages over the steps since the last log.
        Trainer.log(self._trainer, {f"eval_{self._metric}": found})
        control.should_log = control.should_save = True
        if config.patience and self.evaluations_without_gain >= config.patience:
            control.should_training_stop = True

    def state(self) -> dict[str, Any]:
        """The state that a checkpoint stores."""
        attributes = {
            "evaluations_without_gain": self.evaluations_without_gain,
            "at_the_start": self.at_the_start,
        }
        return {"args": {}, "attributes": attributes}

    def _measure(self, model: Any) -> float:
        margins = row_margins(
            model,
            self._collate,
            self._rows,
            self._plan.items,
            batch_size=self._plan.config.batch_size,
        )
        labels = [row["label"] for row in self._rows]
        if self._metric == METRIC:
            return float(metrics.auc(margins, labels))
        # `build-examples` gives every user as many rows.
        shape = (sum(labels), -1)
        return metrics.rank_targets(np.reshape(margins, shape), np.reshape(labels, shape)).mrr(
            min(5, len(labels) // shape[0])
        )


def has_ended(checkpoint: Path, patience: int) -> bool:
    """Whether the run that wrote this checkpoint was finished or stopped early."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    saved = state["stateful_callbacks"].get(ValidatesWhileTraining.__name__)
    without_gain = saved["attributes"]["evaluations_without_gain"] if saved else 0
    stopped = patience > 0 and without_gain >= patience
    return bool(stopped or state["global_step"] >= state["max_steps"])


def best_checkpoint(checkpoints: Sequence[Path]) -> Path:
    """The checkpoint to publish: the best evaluated one, or without evaluations the last."""
    last = checkpoints[-1]
    state = json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))
    if state["best_global_step"] is None:
        return last
    by_name = {folder.name: folder for folder in checkpoints}
    return by_name[f"checkpoint-{state['best_global_step']}"]
