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
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from model_training.finetune.collation import AnswerCollator, training_row
from model_training.finetune.hostile_titles import UNCHANGED, HostileTitles
from model_training.finetune.run_plan import RunPlan, Stage
from model_training.finetune.trainer import (
    NonFiniteLossGuard,
    add_callbacks,
    hostile_titles,
    trainer_arguments,
)
from services.core.prompts import scoring_messages
from services.core.records import Item, ItemId


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
    columns = {name: plan.rows[name].to_pylist() for name in ("item_id", "preference", "label")}
    trainer = PreferenceTrainer(
        model=model,
        args=DPOConfig(
            **trainer_arguments(plan.config, scratch),
            beta=plan.config.dpo_beta,
            max_length=None,  # truncation would silently cut images or the answer
        ),
        data_collator=PreferenceCollator(processor),
        train_dataset=Dataset.from_dict(columns).with_transform(
            PairsWithImages(plan.items, hostile_titles(plan))
        ),
        processing_class=processor,
    )
    add_callbacks(trainer, plan)
    return trainer


class PairsWithImages:
    """Adds prompts, images and answers to the trainer's rows when they are used."""

    def __init__(self, items: Mapping[ItemId, Item], titles: HostileTitles = UNCHANGED) -> None:
        """`items` holds every item that a row names."""
        self._items = items
        self._titles = titles

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """From columns `item_id`, `preference`, `label` to `images`, `prompt`, `chosen` and
        `rejected`, TRL's form.
        """
        rows = []
        for item_id, preference, label in zip(
            columns["item_id"], columns["preference"], columns["label"], strict=True
        ):
            item = self._titles.in_prompt(self._items[item_id], preference)
            messages = scoring_messages(preference, item)
            chosen = training_row(messages, label=label)
            rejected = training_row(messages, label=not label)
            rows.append(
                {
                    "images": chosen["images"],
                    "prompt": chosen["prompt"],
                    "chosen": chosen["completion"],
                    "rejected": rejected["completion"],
                }
            )
        return {name: [row[name] for row in rows] for name in rows[0]}


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
