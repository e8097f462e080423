"""Stage `dpo`: direct preference optimization of the answers, by TRL.

Every row of the examples is a preference between two answers to its question: Yes over No for the
target item, No over Yes for a negative sample, hard or uniform. Both log-probabilities are those of
the answer's first token, which the engines read. So the loss of a target is

    -log sigmoid( beta x (margin - margin of the start adapter) )

and that of a negative sample has the opposite sign. The stage starts from the SFT adapter, which is
also the reference: TRL keeps a frozen copy of it, so the first loss is log 2. `dpo_beta` is the
penalty for leaving the reference.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from trl import DPOConfig, DPOTrainer

from model_training.finetune.collation import AnswerCollator, training_row
from model_training.finetune.run_plan import RunPlan, Stage
from model_training.finetune.trainer import NonFiniteLossGuard, PromptRows, trainer_arguments
from services.core.records import ItemId


class PreferenceTrainer(NonFiniteLossGuard, DPOTrainer):  # type: ignore[misc]  # trl is untyped
    """TRL's trainer, with a check of the loss and with resuming."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        # From a checkpoint with several adapters transformers 5.19 loads those in subfolders: the
        # reference, and not the trained one. The reference is a copy of the start adapter already.
        (model or self.model).load_adapter(resume_from_checkpoint, "default", is_trainable=True)


def build_trainer(plan: RunPlan, model: Any, processor: Any, scratch: Path) -> PreferenceTrainer:
    """TRL's trainer over the rows, checkpointing and logging into `scratch`.

    `model` has the start adapter, and TRL makes its frozen copy here.
    """
    rows = plan.rows.select(["item_id", "preference", "label"]).to_pylist()
    return PreferenceTrainer(
        model=model,
        args=DPOConfig(
            **trainer_arguments(plan.config, scratch),
            beta=plan.config.dpo_beta,
            max_length=None,  # truncation would silently cut images or the answer
        ),
        data_collator=PreferenceCollator(processor),
        train_dataset=PairsWithImages.dataset(plan, rows),
        processing_class=processor,
    )


class PairsWithImages(PromptRows):
    """Questions with a chosen and a rejected answer, in TRL's form."""

    def complete(self, item_id: ItemId, preference: str, label: bool) -> dict[str, Any]:
        """The row's `images`, `prompt`, `chosen` and `rejected`."""
        messages = self.prompt(item_id, preference)
        chosen = training_row(messages, label=label)
        return {
            "images": chosen["images"],
            "prompt": chosen["prompt"],
            "chosen": chosen["completion"],
            "rejected": training_row(messages, label=not label)["completion"],
        }


class PreferenceCollator:
    """Batches rows of `PairsWithImages`, by the tokens of `AnswerCollator`.

    TRL's own collator tokenizes prompt and answer separately, which gives other tokens than in the
    engines (see `collation`).
    """

    def __init__(self, processor: Any) -> None:
        """`processor` is the base model's; AnswerTokenMissing if its template has no answers."""
        self._collate = AnswerCollator(processor)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Twice B rows, the chosen answers first: `input_ids`, `attention_mask` and
        `completion_mask` (2B, T), 1 on the first token of the answer alone, and the images.
        """
        answered = [
            {"images": row["images"], "prompt": row["prompt"], "completion": row[answer]}
            for answer in ("chosen", "rejected")
            for row in rows
        ]
        batch = self._collate(answered)
        tokens = self._collate.answers
        labels = batch.pop("labels")
        # Labels ignore the prompt, and the end of a turn is neither Yes nor No.
        batch["completion_mask"] = ((labels == tokens.yes) | (labels == tokens.no)).long()
        return batch


STAGE = Stage("dpo", "adapter-dpo", build_trainer)
