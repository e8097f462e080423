"""Stage `harden`: makes scores independent of text that strangers add to titles.

    loss = mean of (margin - reference margin)^2  +  hostile_weight x the same under hostile titles

The reference margin of a row is that of the start adapter under the item's own title, computed
before the first step. There are no labels, so the stage learns nothing about users or items, and
the order of honest items and the calibration do not change. (Stage `rank` with the second term,
tried in the demo world, did as much against hostile titles and lost 0.03 MRR@5 on an unseen
catalogue.) `hostile_titles` is the share of the rows with a second prompt.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from datasets import Dataset
from transformers import TrainingArguments

from model_training.finetune.collation import AnswerCollator
from model_training.finetune.distributed import is_main
from model_training.finetune.hostile_titles import HostileTitles
from model_training.finetune.run_plan import RunPlan, Stage
from model_training.finetune.stages.listwise import GroupCollator, prompt_margins
from model_training.finetune.trainer import (
    NonFiniteLossGuard,
    add_callbacks,
    hostile_titles,
    rows_per_step,
    trainer_arguments,
)
from model_training.finetune.validation_callback import row_margins
from services.core.data_folder.atomic_write import atomic_write
from services.core.errors import InputError
from services.core.prompts import scoring_messages
from services.core.records import Item, ItemId
from services.core.scoring import AnswerTokens
from services.engines.rendering import answer_tokens

log = structlog.get_logger(__name__)

_REFERENCE = "kept-margins.json"


def require_hostile_titles(plan: RunPlan) -> None:
    """InputError if no title is made hostile."""
    if not plan.config.hostile_titles:
        raise InputError("stage harden needs hostile titles; set hostile_titles, to 0.9 say")


def build_trainer(plan: RunPlan, model: Any, processor: Any, scratch: Path) -> "HardeningTrainer":
    """The trainer over the rows that the run uses, checkpointing and logging into `scratch`."""
    rows = rows_used(plan)
    margins = _reference_margins(plan, rows, model, processor, scratch)
    columns = {name: [row[name] for row in rows] for name in ("item_id", "preference")}
    trainer = HardeningTrainer(
        model=model,
        # No labels: the reference margins come with the prompts.
        args=TrainingArguments(**trainer_arguments(plan.config, scratch), label_names=[]),
        data_collator=PromptPairCollator(processor),
        train_dataset=Dataset.from_dict({**columns, "reference": margins}).with_transform(
            PromptPairs(plan.items, hostile_titles(plan))
        ),
        processing_class=processor,
        answers=answer_tokens(processor),
        hostile_weight=plan.config.hostile_weight,
    )
    add_callbacks(trainer, plan)
    return trainer


def rows_used(plan: RunPlan) -> list[dict[str, Any]]:
    """The rows that `max_steps` needs, drawn by the seed, or all rows."""
    rows: list[dict[str, Any]] = plan.rows.to_pylist()
    if plan.config.max_steps > 0:
        num_used = min(len(rows), plan.config.max_steps * rows_per_step(plan.config))
        drawn = np.random.default_rng(plan.config.seed).permutation(len(rows))[:num_used]
        rows = [rows[number] for number in drawn]
    return rows


def _reference_margins(
    plan: RunPlan, rows: Sequence[Mapping[str, Any]], model: Any, processor: Any, scratch: Path
) -> list[float]:
    """The margins of the start adapter; a resumed run reads those of the first one."""
    file = scratch / _REFERENCE
    if file.exists():
        found: list[float] = json.loads(file.read_text(encoding="utf-8"))
        return found
    log.info("reference_margins_measuring", rows=len(rows))
    margins = row_margins(
        model, AnswerCollator(processor), rows, plan.items, batch_size=plan.config.batch_size
    )
    if is_main():
        scratch.mkdir(parents=True, exist_ok=True)
        atomic_write(file, json.dumps(margins).encode())
    return margins


class PromptPairs:
    """Adds one or two prompts and their images to the trainer's rows when they are used."""

    def __init__(self, items: Mapping[ItemId, Item], titles: HostileTitles) -> None:
        """`items` holds every item that a row names."""
        self._items = items
        self._titles = titles

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """From columns `item_id`, `preference`, `reference` to `prompts` and `reference`.

        The first prompt has the item's own title, the second, if any, the hostile one.
        """
        prompts = []
        for item_id, preference in zip(columns["item_id"], columns["preference"], strict=True):
            item = self._items[item_id]
            hostile = self._titles.in_prompt(item, preference)
            versions = (item,) if hostile is item else (item, hostile)
            prompts.append(tuple(scoring_messages(preference, each) for each in versions))
        return {"prompts": prompts, "reference": list(columns["reference"])}


class PromptPairCollator:
    """Batches rows of `PromptPairs`."""

    def __init__(self, processor: Any) -> None:
        """`processor` is the base model's."""
        self._collate = GroupCollator(processor)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """The batch of `GroupCollator` for N prompts, with `reference` and `is_hostile` (N,)."""
        each = [
            (row["reference"], place > 0) for row in rows for place, _ in enumerate(row["prompts"])
        ]
        return {
            **self._collate(rows),
            "reference": torch.tensor([reference for reference, _ in each]),
            "is_hostile": torch.tensor([is_hostile for _, is_hostile in each]),
        }


class HardeningTrainer(NonFiniteLossGuard):
    """transformers' trainer with the loss of this stage."""

    def __init__(self, *, answers: AnswerTokens, hostile_weight: float, **options: Any) -> None:
        """`options` are the trainer's."""
        super().__init__(**options)
        self._answers = answers
        self._hostile_weight = hostile_weight

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of a batch; with its margins (N,) if asked for."""
        prompts = {
            name: each for name, each in inputs.items() if name not in ("reference", "is_hostile")
        }
        margins = prompt_margins(model, prompts, self._answers)
        moved = (margins - inputs["reference"]).square()
        own, hostile = moved[~inputs["is_hostile"]], moved[inputs["is_hostile"]]
        loss = own.mean()
        if len(hostile):
            loss = loss + self._hostile_weight * hostile.mean()
        return (loss, {"margins": margins}) if return_outputs else loss


STAGE = Stage("harden", "adapter-hardened", build_trainer, check=require_hostile_titles)
