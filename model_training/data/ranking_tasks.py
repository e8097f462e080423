"""The ranking tasks of an evaluation: each user's target and its negative samples.

Negatives of evaluation are frozen: drawn once, stored as an artifact with a hash of the rows, and
read from there, so that every model and every rerun ranks the same candidates. The tasks of test
users are in `negatives-PROTOCOL`, those of validation users (on whom fusion is fitted) in
`negatives-PROTOCOL-validation`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from model_training.data.inputs import Inputs
from model_training.data.negative_sampling import Draw
from model_training.data.protocols import Protocol
from model_training.data.visible_items import VisibleItems
from services.core.artifacts import Artifact, QuarantinedRow, Recipe
from services.core.errors import ArtifactMismatch, EmptyDataset, InputError
from services.core.records import ItemId, UserId
from services.core.splits import SPLIT_SEED

NUM_EVALUATION_NEGATIVES = 20
EVALUATION_SEED = 2025

EvaluatedSplit = Literal["test", "validation"]

_SCHEMA = pa.schema(
    [("user_id", pa.string()), ("target", pa.string()), ("negatives", pa.list_(pa.string()))]
)
_DELETE = "delete the folder of the negatives to draw them again"


@dataclass(frozen=True, slots=True)
class RankingTask:
    """One user's target item among negative samples.

    Without negatives (protocol `full`) the target is ranked among all items outside the history.
    """

    user_id: UserId
    history: tuple[ItemId, ...]
    target: ItemId
    negatives: tuple[ItemId, ...]

    @property
    def candidates(self) -> tuple[ItemId, ...]:
        """The target item first, then the negative samples."""
        return (self.target, *self.negatives)


@dataclass(frozen=True)
class FrozenTasks:
    """All ranking tasks of a split, by user id, and the fingerprint of the frozen negatives.

    `num_refused` users of the split could not be given a task.
    """

    tasks: tuple[RankingTask, ...]
    fingerprint: str
    num_refused: int = 0


def load_ranking_tasks(
    inputs: Inputs, protocol: Protocol, split: EvaluatedSplit = "test"
) -> FrozenTasks:
    """The frozen ranking tasks of a protocol; drawn and stored first if they are not there.

    Raises EmptyDataset if the split has no user that can be evaluated, ArtifactMismatch if the
    stored rows do not have their hash, name an item that the user took, or are of other users.
    """
    name = f"negatives-{protocol.name}" + ("-validation" if split == "validation" else "")
    artifact = Artifact(inputs.data, name)
    recipe = _recipe(inputs, protocol, split)
    if not artifact.exists() or not _was_drawn_by(artifact, recipe):
        _freeze(artifact, recipe, inputs, protocol, split)
    manifest = artifact.manifest()
    rows = artifact.read().to_pylist()
    if _digest(rows) != manifest.definition["sha256"]:
        raise ArtifactMismatch(
            f"the rows of {artifact.location} are not those that were frozen; delete the folder to "
            "draw them again"
        )
    tasks = tuple(_read_task(row, inputs, protocol, split) for row in rows)
    if len({task.user_id for task in tasks}) != len(tasks):
        raise ArtifactMismatch(f"the frozen negatives have a user twice; {_DELETE}")
    return FrozenTasks(tasks, manifest.fingerprint, manifest.num_quarantined)


# --- freezing ------------------------------------------------------------------------------------


def _recipe(inputs: Inputs, protocol: Protocol, split: EvaluatedSplit) -> Recipe:
    """All that decides what is drawn; `_freeze` adds the hash of the rows."""
    definition = {
        "protocol": protocol.name,
        "part": split,
        "cut": protocol.cut,
        "draw": protocol.draw_name,
        "num_negatives": 0 if protocol.whole_catalogue else NUM_EVALUATION_NEGATIVES,
        "seed": EVALUATION_SEED,
        "split_seed": SPLIT_SEED,
        **protocol.settings,
    }
    return Recipe("freeze-negatives", definition, inputs=inputs.fingerprints)


def _was_drawn_by(artifact: Artifact, recipe: Recipe) -> bool:
    manifest = artifact.manifest()
    definition = {key: value for key, value in manifest.definition.items() if key != "sha256"}
    return definition == recipe.definition and manifest.inputs == recipe.inputs


def _freeze(
    artifact: Artifact, recipe: Recipe, inputs: Inputs, protocol: Protocol, split: EvaluatedSplit
) -> None:
    items = VisibleItems(inputs, protocol.cut)
    rows, refused = [], []
    for user_id in sorted(user_id for user_id, found in inputs.split.items() if found == split):
        try:
            rows.append(_draw_row(inputs, protocol, items, user_id))
        except InputError as error:
            refused.append(QuarantinedRow(user_id, str(error)))
    if not rows:
        raise EmptyDataset(
            f"no {split} user of {len(inputs.histories)} users can be evaluated"
            + (f": {refused[0].reason}" if refused else "; prepare more users")
        )
    definition = {**recipe.definition, "sha256": _digest(rows)}
    writer = artifact.write(Recipe(recipe.step, definition, inputs=recipe.inputs))
    writer.write_shard(0, pa.Table.from_pylist(rows, _SCHEMA), refused)
    writer.finish(1, {"users": len(rows)})


def _draw_row(
    inputs: Inputs, protocol: Protocol, items: VisibleItems, user_id: UserId
) -> dict[str, Any]:
    """RowRefused or HistoryTooShort, with the reason, if the user cannot be evaluated."""
    history, target = inputs.hold_out(user_id, protocol.cut)
    draw = Draw(
        user_id,
        inputs.indices(inputs.histories[user_id]),
        num_negatives=NUM_EVALUATION_NEGATIVES,
        purpose=protocol.name,
        seed=EVALUATION_SEED,
    )
    drawn = protocol.draw(draw, items, [*history, target])
    negatives = [] if protocol.whole_catalogue else [inputs.item_ids[index] for index in drawn]
    return {"user_id": user_id, "target": target, "negatives": negatives}


# --- reading -------------------------------------------------------------------------------------


def _read_task(
    row: Mapping[str, Any], inputs: Inputs, protocol: Protocol, split: EvaluatedSplit
) -> RankingTask:
    user_id = row["user_id"]
    if inputs.split.get(user_id) != split:
        raise ArtifactMismatch(
            f"user {user_id!r} has a task of the {split} users and is none; {_DELETE}"
        )
    history, target = inputs.hold_out(user_id, protocol.cut)
    task = RankingTask(user_id, tuple(history), row["target"], tuple(row["negatives"]))
    if task.target != target or set(task.negatives) & set(inputs.histories[user_id]):
        raise ArtifactMismatch(
            f"the frozen candidates of user {user_id!r} do not fit the interactions; {_DELETE}"
        )
    width = 0 if protocol.whole_catalogue else NUM_EVALUATION_NEGATIVES
    if not len(set(task.negatives)) == len(task.negatives) == width:
        raise ArtifactMismatch(
            f"user {user_id!r} has {len(task.negatives)} frozen negatives, some of them twice "
            f"or not {width}; {_DELETE}"
        )
    return task


def _digest(rows: Sequence[Mapping[str, Any]]) -> str:
    text = json.dumps(list(rows), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
