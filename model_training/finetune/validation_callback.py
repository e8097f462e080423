"""Validation while training: by the score that serves; the best checkpoint, an early end.

SFT is judged by AUC, the stages after it by MRR@5: they start where AUC has been reached, and are
there for the order at the top of a user's own candidates. What they start from is judged as well,
and a stage that gained nothing over it says so.

The margin of a row is what the engines answer: log-odds of Yes over No where the answer begins, not
a generated text. Every evaluation is followed by a checkpoint, so that the best one is on disk, and
the state of this callback travels with it: a resumed run stops where an undisturbed one would.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from transformers import Trainer
from transformers.trainer_callback import ExportableState, TrainerCallback

from model_training.finetune.collation import IGNORED, AnswerCollator, training_row
from model_training.finetune.distributed import is_main, num_processes, process_index
from model_training.scoring import metrics
from services.core.prompts import scoring_messages
from services.core.records import Item, ItemId
from services.core.scoring import answer_margin

log = structlog.get_logger(__name__)

METRIC = "validation_auc"
METRIC_AFTER_SFT = "validation_mrr@5"


def row_margins(
    model: Any,
    collate: AnswerCollator,
    rows: Sequence[Mapping[str, Any]],
    items: Mapping[ItemId, Item],
    *,
    batch_size: int,
) -> list[float]:
    """The margin of every row (`item_id`, `preference`), in order, by the model as it stands.

    Processes share the rows and all get all margins. Each runs as many batches as the others, as
    sharded models demand: one that has fewer rows asks its first again.
    """
    own = list(range(process_index(), len(rows), num_processes()))
    size = math.ceil(len(rows) / num_processes())
    asked = own + [0] * (size - len(own))
    found: list[float] = []
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for start in range(0, size, batch_size):
            batch = [
                training_row(
                    scoring_messages(rows[number]["preference"], items[rows[number]["item_id"]]),
                    label=True,
                )
                for number in asked[start : start + batch_size]
            ]
            found += _batch_margins(model, collate, collate(batch))
    model.train(was_training)
    margins = dict(zip(own, found, strict=False))  # without what was asked again
    if num_processes() > 1:
        shares: list[Any] = [None] * num_processes()
        torch.distributed.all_gather_object(shares, margins)
        margins = {number: margin for share in shares for number, margin in share.items()}
    return [margins[number] for number in range(len(rows))]


def _batch_margins(
    model: Any, collate: AnswerCollator, batch: dict[str, torch.Tensor]
) -> list[float]:
    answers = batch.pop("labels") != IGNORED
    last_asked = answers.int().argmax(dim=1) - 1  # (B,): the last token of each prompt
    positions, which = torch.unique(last_asked, return_inverse=True)
    device = next(model.parameters()).device
    on_device = {name: values.to(device) for name, values in batch.items()}
    kept = positions.to(device)
    logits = model(**on_device, logits_to_keep=kept, use_cache=False).logits  # (B, positions, V)
    chosen = logits[torch.arange(len(which)), which.to(device)].float()
    logprobs = torch.log_softmax(chosen, dim=-1)[:, [collate.answers.yes, collate.answers.no]]
    return [answer_margin(yes=yes, no=no) for yes, no in logprobs.tolist()]


class ValidatesWhileTraining(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Asks validation users every `evaluate_steps` steps and keeps the best checkpoint in mind.

    Its name and attributes stand in the trainer's own state file.
    """

    def __init__(self, trainer: Any, collate: AnswerCollator, plan: Any) -> None:
        """`trainer` gets the metric in its logs; `plan` is the run."""
        users = list(dict.fromkeys(plan.validation["user_id"].to_pylist()))
        asked = set(users[: plan.config.evaluate_users])
        self._rows = [row for row in plan.validation.to_pylist() if row["user_id"] in asked]
        self._trainer, self._collate, self._plan = trainer, collate, plan
        self._metric = METRIC_AFTER_SFT if plan.stage.starts_from_adapter else METRIC
        self.evaluations_without_gain = 0
        self.at_the_start: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go on as the checkpoint left it that the run resumes from, or judge the start adapter."""
        kept = state.stateful_callbacks[type(self).__name__]["attributes"]
        self.evaluations_without_gain = kept["evaluations_without_gain"]
        self.at_the_start = kept["at_the_start"]
        if self._plan.start_adapter is not None and self.at_the_start is None:
            self.at_the_start = self._measure(kwargs["model"])
            Trainer.log(self._trainer, {f"eval_{self._metric}": self.at_the_start})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell of a stage that is no better than what it started from."""
        best, start = state.best_metric, self.at_the_start
        if is_main() and start is not None and best is not None and best <= start:
            log.warning(
                "stage_gained_nothing",
                metric=self._metric,
                at_the_start=round(start, 4),
                best=round(best, 4),
                consequence="the start adapter serves as well; keep it, or change learning_rate",
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Evaluate when it is time, and after the last step; end the run if nothing gets better."""
        config = self._plan.config
        if state.global_step % config.evaluate_steps and state.global_step < state.max_steps:
            return
        found = self._measure(kwargs["model"])
        if state.best_metric is None or found > state.best_metric:
            state.best_metric, state.best_global_step = found, state.global_step
            self.evaluations_without_gain = 0
        else:
            self.evaluations_without_gain += 1
        # The plain log: TRL's would close its averages over the steps since the last one.
        Trainer.log(self._trainer, {f"eval_{self._metric}": found})
        control.should_log = control.should_save = True
        if config.patience and self.evaluations_without_gain >= config.patience:
            control.should_training_stop = True

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of this callback."""
        kept = {
            "evaluations_without_gain": self.evaluations_without_gain,
            "at_the_start": self.at_the_start,
        }
        return {"args": {}, "attributes": kept}

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
        # Every user has as many rows: `build-examples` quarantines the others.
        shape = (sum(labels), -1)
        return metrics.rank_targets(np.reshape(margins, shape), np.reshape(labels, shape)).mrr(
            min(5, len(labels) // shape[0])
        )


def has_ended(checkpoint: Path, patience: int) -> bool:
    """Whether the run that wrote this checkpoint had nothing left to train after it."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    kept = state["stateful_callbacks"].get(ValidatesWhileTraining.__name__)
    without_gain = kept["attributes"]["evaluations_without_gain"] if kept else 0
    stopped = patience > 0 and without_gain >= patience
    return bool(stopped or state["global_step"] >= state["max_steps"])


def best_checkpoint(checkpoints: Sequence[Path]) -> Path:
    """The one to publish: the best that was evaluated, or without evaluations the last."""
    last = checkpoints[-1]
    state = json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))
    if state["best_global_step"] is None:
        return last
    by_name = {folder.name: folder for folder in checkpoints}
    return by_name[f"checkpoint-{state['best_global_step']}"]
