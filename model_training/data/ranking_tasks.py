"""The ranking tasks of an evaluation: each user's target and the negative samples it is among.

A user's draw depends on the seed, the purpose and the user id alone, not on who else is drawn or in
what order. Evaluation negatives are frozen: drawn once, stored as an artifact beside their hash,
and read from there, so that every model and every rerun ranks the very same candidates. Test users
have theirs in `negatives-PROTOCOL`, validation users (on whom fusion is fitted) in
`negatives-PROTOCOL-validation`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from model_training.data.inputs import Histories, read_histories
from model_training.data.negative_sampling import (
    ERA_SHARE,
    MIN_ERA_ITEMS,
    draw_near_era,
    draw_uniform,
    draw_weighted,
)
from model_training.data.protocols import Protocol, find_protocol
from model_training.data.visible_items import VisibleItems
from services.core.artifacts import Artifact, QuarantinedRow, Recipe
from services.core.errors import ArtifactMismatch, EmptyDataset, InputError
from services.core.records import ItemId, UserId
from services.core.splits import SPLIT_SEED, hold_out, split_users, training_popularity

NUM_EVALUATION_NEGATIVES = 20
EVALUATION_SEED = 2025

EvaluatedSplit = Literal["test", "validation"]

_SCHEMA = pa.schema(
    [("user_id", pa.string()), ("target", pa.string()), ("negatives", pa.list_(pa.string()))]
)
_DELETE = "delete the folder of the negatives to draw them again"


@dataclass(frozen=True, slots=True)
class RankingTask:
    """One user's ranking task: the target item among negative samples.

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
    """All ranking tasks of the users of one part, by user id, and the fingerprint of what was
    frozen. `num_refused` users of the part could not be given one.
    """

    tasks: tuple[RankingTask, ...]
    fingerprint: str
    num_refused: int = 0


def load_ranking_tasks(data: str, protocol: str, part: EvaluatedSplit = "test") -> FrozenTasks:
    """The frozen ranking tasks of a protocol; drawn and stored first if they are not there.

    Raises InputError for an unknown protocol, EmptyDataset if the part has no user that can be
    evaluated, ArtifactMismatch if what is stored is not what its hash was taken of, hits an item
    that the user took, or is of users outside the part.
    """
    rules = find_protocol(protocol)
    histories = read_histories(data)
    name = f"negatives-{protocol}" + ("-validation" if part == "validation" else "")
    artifact = Artifact(data, name)
    recipe = _recipe(data, histories, rules, part)
    if not artifact.exists() or not _follows(artifact, recipe):
        _freeze(artifact, recipe, data, histories, rules, part)
    manifest = artifact.manifest()
    rows = artifact.read().to_pylist()
    if _digest(rows) != manifest.definition["sha256"]:
        raise ArtifactMismatch(
            f"the rows of {artifact.location} are not those that were frozen; delete the folder to "
            "draw them again"
        )
    tasks = _read_tasks(rows, histories.by_user, rules, part)
    return FrozenTasks(tasks, manifest.fingerprint, manifest.num_quarantined)


# --- freezing ------------------------------------------------------------------------------------


def _recipe(data: str, histories: Histories, rules: Protocol, part: EvaluatedSplit) -> Recipe:
    """All that decides what is drawn; the hash of the rows joins it when they are frozen."""
    definition: dict[str, Any] = {
        "protocol": rules.name,
        "part": part,
        "cut": rules.cut,
        "draw": rules.draw,
        "num_negatives": 0 if rules.whole_catalogue else NUM_EVALUATION_NEGATIVES,
        "seed": EVALUATION_SEED,
        "split_seed": SPLIT_SEED,
    }
    if rules.draw == "era":
        definition |= {"era_share": ERA_SHARE, "min_era_items": MIN_ERA_ITEMS}
    items = Artifact(data, "items").manifest().fingerprint
    inputs = {"items": items, "interactions": histories.fingerprint}
    return Recipe("freeze-negatives", definition, inputs=inputs)


def _follows(artifact: Artifact, recipe: Recipe) -> bool:
    """Whether what is stored was drawn by this recipe."""
    manifest = artifact.manifest()
    drawn_by = {key: value for key, value in manifest.definition.items() if key != "sha256"}
    return drawn_by == recipe.definition and manifest.inputs == recipe.inputs


def _freeze(
    artifact: Artifact,
    recipe: Recipe,
    data: str,
    histories: Histories,
    rules: Protocol,
    part: EvaluatedSplit,
) -> None:
    sampler = _Sampler(data, histories, rules)
    rows, refused = [], []
    split = split_users(list(histories.by_user))
    users = sorted(user_id for user_id, found in split.items() if found == part)
    for user_id in users:
        try:
            rows.append(sampler.row(user_id))
        except InputError as error:
            refused.append(QuarantinedRow(user_id, str(error)))
    if not rows:
        raise EmptyDataset(
            f"no {part} user of {len(histories.by_user)} users can be evaluated"
            + (f": {refused[0].reason}" if refused else "; prepare more users")
        )
    definition = {**recipe.definition, "sha256": _digest(rows)}
    writer = artifact.write(Recipe(recipe.step, definition, inputs=recipe.inputs))
    writer.write_shard(0, pa.Table.from_pylist(rows, _SCHEMA), refused)
    writer.finish(1, {"users": len(rows)})


class _Sampler:
    """Draws one user's row after the other by the rules of a protocol."""

    def __init__(self, data: str, histories: Histories, rules: Protocol) -> None:
        self._rules = rules
        self._by_user = histories.by_user
        self._items = VisibleItems(data, histories, rules.cut)
        self._popularity = training_popularity(histories.by_user)

    def row(self, user_id: UserId) -> dict[str, Any]:
        """RowRefused or HistoryTooShort, with the reason, if the user cannot be evaluated."""
        interactions = self._by_user[user_id]
        history, target = hold_out(interactions, self._rules.cut, self._popularity)
        negatives = self._draw(user_id, interactions, history, target)
        names = [self._items.ids[number] for number in negatives]
        return {"user_id": user_id, "target": target, "negatives": names}

    def _draw(
        self,
        user_id: UserId,
        interactions: Sequence[ItemId],
        history: Sequence[ItemId],
        target: ItemId,
    ) -> list[int]:
        items, taken = self._items, self._items.indices(interactions)
        drawing: dict[str, Any] = {
            "num_negatives": NUM_EVALUATION_NEGATIVES,
            "purpose": self._rules.name,
            "seed": EVALUATION_SEED,
        }
        if self._rules.draw == "popularity":
            drawn = draw_weighted(user_id, taken, weights=items.takers, **drawing)
        elif self._rules.draw == "era":
            era = self._era_of_target([*history, target])
            drawn = draw_near_era(user_id, taken, eras=items.eras, era=era, **drawing)
        else:
            drawn = draw_uniform(user_id, taken, num_items=len(items.ids), **drawing)
        # Who has too few rivals for a draw has too few for the whole catalogue as well.
        return [] if self._rules.whole_catalogue else [int(number) for number in drawn]

    def _era_of_target(self, history_and_target: Sequence[ItemId]) -> float:
        """The target's era; of one that nobody is seen to take, that of the latest item before it
        that has one; the middle, if there is none.
        """
        eras = self._items.eras[self._items.indices(history_and_target)]
        known = eras[~np.isnan(eras)]
        return float(known[-1]) if len(known) else 0.5


# --- reading -------------------------------------------------------------------------------------


def _read_tasks(
    rows: Sequence[Mapping[str, Any]],
    by_user: Mapping[UserId, Sequence[ItemId]],
    rules: Protocol,
    part: EvaluatedSplit,
) -> tuple[RankingTask, ...]:
    split = split_users(list(by_user))
    popularity = training_popularity(by_user)
    width = 0 if rules.whole_catalogue else NUM_EVALUATION_NEGATIVES
    tasks = []
    for row in rows:
        user_id = row["user_id"]
        if split.get(user_id) != part:
            raise ArtifactMismatch(
                f"user {user_id!r} has a task of the {part} users and is none; {_DELETE}"
            )
        interactions = by_user[user_id]
        history, target = hold_out(interactions, rules.cut, popularity)
        task = RankingTask(user_id, tuple(history), row["target"], tuple(row["negatives"]))
        if task.target != target or set(task.negatives) & set(interactions):
            raise ArtifactMismatch(
                f"the frozen candidates of user {user_id!r} do not fit the interactions; {_DELETE}"
            )
        if not len(set(task.negatives)) == len(task.negatives) == width:
            raise ArtifactMismatch(
                f"user {user_id!r} has {len(task.negatives)} frozen negatives, some of them twice "
                f"or not {width}; {_DELETE}"
            )
        tasks.append(task)
    if len({task.user_id for task in tasks}) != len(tasks):
        raise ArtifactMismatch(f"the frozen negatives have a user twice; {_DELETE}")
    return tuple(tasks)


def _digest(rows: Sequence[Mapping[str, Any]]) -> str:
    text = json.dumps(list(rows), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
