"""Stage `rank`: a listwise softmax over the margins of a target and its user's negatives.

    loss = -log softmax(margins of the group / temperature)[target]

A group is one user's target item and `rank_negatives` negatives of the same user, hard ones first,
then uniform ones. SFT trains each row on its own; this stage trains the order of a user's
candidates, as ranking needs it. It starts from the SFT adapter.

Batches and accumulation count groups; a step of
`batch_size` groups runs `batch_size x (1 + rank_negatives)` prompts.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch.nn.functional import cross_entropy

from model_training.finetune.run_plan import RunPlan, Stage
from model_training.finetune.trainer import MarginTrainer, PromptRows
from services.core.errors import ArtifactMismatch
from services.core.records import ItemId


def require_groups(plan: RunPlan) -> None:
    """ArtifactMismatch if the examples hold too few negatives for a group."""
    group_rows(plan.rows, plan.config.rank_negatives)


def build_trainer(plan: RunPlan, model: Any, processor: Any, scratch: Path) -> MarginTrainer:
    """The trainer over the groups, checkpointing and logging into `scratch`."""
    size, temperature = 1 + plan.config.rank_negatives, plan.config.rank_temperature
    return MarginTrainer(
        plan,
        model,
        processor,
        scratch,
        rows=GroupsWithImages.dataset(plan, group_rows(plan.rows, plan.config.rank_negatives)),
        loss=partial(listwise_loss, group_size=size, temperature=temperature),
    )


def listwise_loss(margins: torch.Tensor, *, group_size: int, temperature: float) -> torch.Tensor:
    """Mean over groups; each `group_size` of the margins (B,) are a group, its target first."""
    groups = margins.view(-1, group_size)
    targets = torch.zeros(len(groups), dtype=torch.long, device=groups.device)
    return cross_entropy(groups / temperature, targets)


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


class GroupsWithImages(PromptRows):
    """The prompts of a group, in its order."""

    def complete(self, preference: str, item_ids: Sequence[ItemId]) -> dict[str, Any]:
        """The group's `prompts`."""
        return {"prompts": tuple(self.prompt(item_id, preference) for item_id in item_ids)}


STAGE = Stage("rank", "adapter-rank", build_trainer, check=require_groups)
