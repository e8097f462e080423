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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch

from model_training.finetune.collation import PromptCollator
from model_training.finetune.distributed import is_main
from model_training.finetune.margins import row_margins
from model_training.finetune.run_plan import RunPlan, Stage
from model_training.finetune.trainer import MarginTrainer, PromptRows, rows_per_step
from services.core.data_folder.atomic_write import atomic_write
from services.core.errors import InputError
from services.core.prompts import scoring_messages
from services.core.records import ItemId

log = structlog.get_logger(__name__)

_REFERENCE = "kept-margins.json"


def require_hostile_titles(plan: RunPlan) -> None:
    """InputError if no title is made hostile."""
    if not plan.config.hostile_titles:
        raise InputError("stage harden needs hostile titles; set hostile_titles, to 0.9 say")


def build_trainer(plan: RunPlan, model: Any, processor: Any, scratch: Path) -> MarginTrainer:
    """The trainer over the rows that the run uses, checkpointing and logging into `scratch`."""
    rows = rows_used(plan)
    references = _reference_margins(plan, rows, model, processor, scratch)
    return MarginTrainer(
        plan,
        model,
        processor,
        scratch,
        rows=PromptPairs.dataset(
            plan,
            [
                {"item_id": row["item_id"], "preference": row["preference"], "reference": margin}
                for row, margin in zip(rows, references, strict=True)
            ],
        ),
        loss=partial(hardening_loss, hostile_weight=plan.config.hostile_weight),
        labels=("reference", "is_hostile"),
    )


def hardening_loss(
    margins: torch.Tensor,
    *,
    reference: torch.Tensor,
    is_hostile: torch.Tensor,
    hostile_weight: float,
) -> torch.Tensor:
    """The loss of a batch of prompts; all (B,)."""
    moved = (margins - reference).square()
    own, hostile = moved[~is_hostile], moved[is_hostile]
    loss = own.mean()
    if len(hostile):
        loss = loss + hostile_weight * hostile.mean()
    return loss


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
        model, PromptCollator(processor), rows, plan.items, batch_size=plan.config.batch_size
    )
    if is_main():
        scratch.mkdir(parents=True, exist_ok=True)
        atomic_write(file, json.dumps(margins).encode())
    return margins


class PromptPairs(PromptRows):
    """One or two prompts about an item, with the margin that both should have."""

    def complete(self, item_id: ItemId, preference: str, reference: float) -> dict[str, Any]:
        """The row's `prompts`, and for each of them `reference` and `is_hostile`.

        The first prompt has the item's own title, the second, if any, the hostile one.
        """
        own = self.items[item_id]
        hostile = self.titles.in_prompt(own, preference)
        versions = (own,) if hostile is own else (own, hostile)
        return {
            "prompts": tuple(scoring_messages(preference, item) for item in versions),
            "reference": [reference] * len(versions),
            "is_hostile": [item is not own for item in versions],
        }


STAGE = Stage("harden", "adapter-hardened", build_trainer, check=require_hostile_titles)
