"""Negative samples: items a user never took, drawn by a seed of the user's own.

A user's draw depends on the seed, the purpose and the user id alone, not on who else is drawn or
in what order. Evaluation negatives are frozen: drawn once, stored as an artifact beside their hash,
and read from there, so that every model and every rerun ranks the very same candidates.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model_training.inputs import Histories, read_histories, read_item_ids
from services.core.artifacts import Artifact, QuarantinedRow, Recipe
from services.core.errors import ArtifactMismatch, EmptyDataset, InputError, RowRefused
from services.core.records import ItemId, UserId
from services.core.splits import SPLIT_SEED, leave_last_out, split_users

PROTOCOLS = ("chrono-uniform",)
NUM_EVALUATION_NEGATIVES = 20
EVALUATION_SEED = 2025

_SCHEMA = pa.schema(
    [("user_id", pa.string()), ("target", pa.string()), ("negatives", pa.list_(pa.string()))]
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One test user's ranking task: the target item among negative samples."""

    user_id: UserId
    history: tuple[ItemId, ...]
    target: ItemId
    negatives: tuple[ItemId, ...]

    @property
    def candidates(self) -> tuple[ItemId, ...]:
        """The target item first, then the negative samples."""
        return (self.target, *self.negatives)


@dataclass(frozen=True)
class Trials:
    """All test users' ranking tasks, and the fingerprint of the negatives they use."""

    trials: tuple[Trial, ...]
    fingerprint: str


def draw_uniform(
    user_id: UserId,
    taken: Collection[int],
    *,
    num_items: int,
    num_negatives: int,
    purpose: str,
    seed: int,
) -> NDArray[np.int64]:
    """Distinct item indices outside `taken`, each as likely as any other: (num_negatives,).

    Raises RowRefused if the catalogue has too few items that the user did not take.
    """
    taken = set(taken)
    if num_items - len(taken) < num_negatives:
        raise RowRefused(
            f"user {user_id!r} took {len(taken)} of {num_items} items, which leaves fewer than "
            f"{num_negatives} negative samples"
        )
    digest = hashlib.sha256(f"{seed}:{purpose}:{user_id}".encode()).digest()
    rng = np.random.default_rng(list(digest))
    # Of this many distinct items at most len(taken) fall out, so enough remain; and removing some
    # from a random order leaves the others in random order.
    drawn = rng.choice(num_items, num_negatives + len(taken), replace=False)
    kept = drawn[[index not in taken for index in drawn.tolist()]]
    return np.asarray(kept[:num_negatives], np.int64)


def load_trials(data: str, protocol: str) -> Trials:
    """The frozen ranking tasks of a protocol; drawn and stored first if they are not there.

    Raises InputError for an unknown protocol, ArtifactMismatch if the stored negatives are not the
    ones their hash was taken of, or hit an item that the user took.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"there is no protocol {protocol!r}; choose from {', '.join(PROTOCOLS)}")
    histories = read_histories(data)
    artifact = Artifact(data, f"negatives-{protocol}")
    items = Artifact(data, "items").manifest().fingerprint
    inputs = {"items": items, "interactions": histories.fingerprint}
    if not artifact.exists() or artifact.manifest().inputs != inputs:
        _freeze(artifact, data, histories, inputs, protocol)
    manifest = artifact.manifest()
    rows = artifact.read().to_pylist()
    if _digest(rows) != manifest.definition["sha256"]:
        raise ArtifactMismatch(
            f"the rows of {artifact.location} are not those that were frozen; delete the folder to "
            "draw them again"
        )
    trials = tuple(_trial(row, histories.by_user) for row in rows)
    if len({trial.user_id for trial in trials}) != len(trials):
        raise ArtifactMismatch(f"{artifact.location} has a user twice; delete the folder")
    return Trials(trials, manifest.fingerprint)


def _freeze(
    artifact: Artifact,
    data: str,
    histories: Histories,
    inputs: Mapping[str, str],
    protocol: str,
) -> None:
    item_ids = read_item_ids(data)
    index = {item_id: number for number, item_id in enumerate(item_ids)}
    rows, refused = [], []
    split = split_users(list(histories.by_user))
    for user_id in sorted(user_id for user_id, part in split.items() if part == "test"):
        interactions = histories.by_user[user_id]
        try:
            _, target = leave_last_out(interactions)
            negatives = draw_uniform(
                user_id,
                [index[item_id] for item_id in interactions],
                num_items=len(item_ids),
                num_negatives=NUM_EVALUATION_NEGATIVES,
                purpose=protocol,
                seed=EVALUATION_SEED,
            )
        except InputError as error:
            refused.append(QuarantinedRow(user_id, str(error)))
            continue
        names = [item_ids[number] for number in negatives]
        rows.append({"user_id": user_id, "target": target, "negatives": names})
    if not rows:
        raise EmptyDataset(
            f"no test user of {len(histories.by_user)} users can be evaluated"
            + (f": {refused[0].reason}" if refused else "; prepare more users")
        )
    definition = {
        "protocol": protocol,
        "num_negatives": NUM_EVALUATION_NEGATIVES,
        "seed": EVALUATION_SEED,
        "split_seed": SPLIT_SEED,
        "sha256": _digest(rows),
    }
    writer = artifact.write(Recipe("freeze-negatives", definition, inputs=inputs))
    writer.write_shard(0, pa.Table.from_pylist(rows, _SCHEMA), refused)
    writer.finish(1, {"users": len(rows)})


def _trial(row: Mapping[str, Any], by_user: Mapping[UserId, Sequence[ItemId]]) -> Trial:
    interactions = by_user[row["user_id"]]
    history, target = leave_last_out(interactions)
    trial = Trial(row["user_id"], tuple(history), row["target"], tuple(row["negatives"]))
    if trial.target != target or set(trial.negatives) & set(interactions):
        raise ArtifactMismatch(
            f"the frozen candidates of user {trial.user_id!r} do not fit the interactions; delete "
            "the folder of the negatives to draw them again"
        )
    return trial


def _digest(rows: Sequence[Mapping[str, Any]]) -> str:
    text = json.dumps(list(rows), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
