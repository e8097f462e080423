"""Stage `rank`: a listwise softmax over the margins of a target and its user's negatives.

    loss = -log softmax(margins of the group / temperature)[target]

A group is one user's target item and `rank_negatives` negatives of the same user, hard ones first,
then uniform ones. SFT trains each row on its own; this stage trains the order of a user's
candidates, as ranking needs it. It starts from the SFT adapter.

Margins are computed as in the engines: the logits of the answer tokens at the last position of the
unanswered prompt, which is padded on the left. Batches and accumulation count groups; a step of
`batch_size` groups runs `batch_size x (1 + rank_negatives)` prompts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import TrainingArguments

from model_training.finetune.hostile_titles import UNCHANGED, HostileTitles
from model_training.finetune.run_plan import RunPlan, Stage
from model_training.finetune.trainer import (
    NonFiniteLossGuard,
    add_callbacks,
    hostile_titles,
    trainer_arguments,
)
from services.core.errors import ArtifactMismatch
from services.core.prompts import Messages, scoring_messages
from services.core.records import Item, ItemId
from services.core.scoring import AnswerTokens
from services.engines.rendering import answer_tokens, chat_content, prompt_images, render


def require_groups(plan: RunPlan) -> None:
    """ArtifactMismatch if the examples hold too few negatives for a group."""
    group_rows(plan.rows, plan.config.rank_negatives)


def build_trainer(plan: RunPlan, model: Any, processor: Any, scratch: Path) -> "ListwiseTrainer":
    """The trainer over the groups, checkpointing and logging into `scratch`."""
    groups = group_rows(plan.rows, plan.config.rank_negatives)
    trainer = ListwiseTrainer(
        model=model,
        # No labels: the target is the first of its group.
        args=TrainingArguments(**trainer_arguments(plan.config, scratch), label_names=[]),
        data_collator=GroupCollator(processor),
        train_dataset=Dataset.from_list(groups).with_transform(
            GroupsWithImages(plan.items, hostile_titles(plan))
        ),
        processing_class=processor,
        answers=answer_tokens(processor),
        group_size=1 + plan.config.rank_negatives,
        temperature=plan.config.rank_temperature,
    )
    add_callbacks(trainer, plan)
    return trainer


def group_rows(rows: pa.Table, num_negatives: int) -> list[dict[str, Any]]:
    """`{"preference", "item_ids"}` of every group; the target first, then the negatives.

    `rows` are examples; the rows of a user are the positive, then uniform, then hard negatives. A
    user with enough uniform negatives gives several groups, which share the hard ones, so that an
    epoch sees every row. Raises ArtifactMismatch if a user has too few for one.
    """
    by_user: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        by_user.setdefault(row["user_id"], []).append(row)
    groups = []
    for user_id, own in by_user.items():
        kinds: dict[str, list[ItemId]] = {"positive": [], "uniform": [], "hard": []}
        for row in own:
            kinds[row["kind"]].append(row["item_id"])
        hard = kinds["hard"][:num_negatives]
        num_uniform = num_negatives - len(hard)
        if len(kinds["uniform"]) < num_uniform:
            raise ArtifactMismatch(
                f"a group of {num_negatives} negatives (rank_negatives) is more than the examples "
                f"have for user {user_id!r}: {len(hard)} hard (num_hard_negatives) and "
                f"{len(kinds['uniform'])} uniform (num_negatives); raise these two, or lower it"
            )
        num_groups = len(kinds["uniform"]) // num_uniform if num_uniform else 1
        for number in range(num_groups):
            uniform = kinds["uniform"][number * num_uniform : (number + 1) * num_uniform]
            item_ids = [*kinds["positive"], *hard, *uniform]
            groups.append({"preference": own[0]["preference"], "item_ids": item_ids})
    return groups


class GroupsWithImages:
    """Adds prompts and images to the trainer's groups when they are used."""

    def __init__(self, items: Mapping[ItemId, Item], titles: HostileTitles = UNCHANGED) -> None:
        """`items` holds every item that a group names."""
        self._items = items
        self._titles = titles

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """From columns `preference`, `item_ids` to `prompts`: a tuple of messages a group."""
        pairs = zip(columns["preference"], columns["item_ids"], strict=True)
        in_prompt = self._titles.in_prompt
        return {
            "prompts": [
                tuple(
                    scoring_messages(preference, in_prompt(self._items[item_id], preference))
                    for item_id in item_ids
                )
                for preference, item_ids in pairs
            ]
        }


class GroupCollator:
    """Batches the prompts of groups, one group after the other, each target first."""

    def __init__(self, processor: Any) -> None:
        """`processor` is the base model's."""
        self._processor = processor

    def __call__(self, groups: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask` (B, T) of the unanswered prompts, padded on the left,
        and the images.
        """
        prompts: list[Messages] = [messages for group in groups for messages in group["prompts"]]
        images = [image for messages in prompts for image in prompt_images(messages)]
        batch = self._processor(
            text=[
                render(self._processor, chat_content(messages), answered=False)
                for messages in prompts
            ],
            images=images or None,
            padding=True,
            padding_side="left",  # so that the answer's position is the last of every row
            add_special_tokens=False,  # the template has written every special token already
            return_tensors="pt",
        )
        return dict(batch)


class ListwiseTrainer(NonFiniteLossGuard):
    """transformers' trainer with the loss of this stage."""

    def __init__(
        self, *, answers: AnswerTokens, group_size: int, temperature: float, **options: Any
    ) -> None:
        """`options` are the trainer's; every `group_size` rows of a batch are one group."""
        super().__init__(**options)
        self._answers = answers
        self._group_size = group_size
        self._temperature = temperature

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean over the groups of a batch; with its margins (groups, group_size) if asked for."""
        margins = prompt_margins(model, inputs, self._answers).view(-1, self._group_size)
        targets = torch.zeros(len(margins), dtype=torch.long, device=margins.device)
        loss = cross_entropy(margins / self._temperature, targets)
        return (loss, {"margins": margins}) if return_outputs else loss


def prompt_margins(
    model: Any, inputs: Mapping[str, torch.Tensor], answers: AnswerTokens
) -> torch.Tensor:
    """The margin (B,) of every prompt of a batch that is padded on the left, with its gradient."""
    logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1].float()  # (B, V)
    margins: torch.Tensor = logits[:, answers.yes] - logits[:, answers.no]
    return margins


STAGE = Stage("rank", "adapter-rank", build_trainer, check=require_groups)
