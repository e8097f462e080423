"""Step 4, `msr build-examples`: questions with their answers, for fine-tuning.

Reads `items`, `interactions` and `preferences`; writes `examples`. Every training and validation
user with a preference gives one positive row (the target item) and some negative rows (items never
taken). Test users give none. A preference that has seen its target is refused.

A row names its item; the picture is joined when a row is used.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from model_training.inputs import read_histories, read_item_ids, read_preferences
from model_training.negatives import draw_uniform
from services.core.artifacts import Artifact, QuarantinedRow, Recipe
from services.core.errors import EmptyDataset, RowRefused
from services.core.prompts import SCORING_FINGERPRINT
from services.core.records import ItemId, UserId
from services.core.splits import SPLIT_SEED, leave_last_out, split_users

ARTIFACT = "examples"
DEFAULT_NUM_NEGATIVES = 4
DEFAULT_SEED = 2025
USERS_PER_SHARD = 1000

SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("preference", pa.string()),
        ("label", pa.bool_()),
        ("split", pa.string()),
    ]
)


def run(
    data: str,
    *,
    num_negatives: int = DEFAULT_NUM_NEGATIVES,
    seed: int = DEFAULT_SEED,
    preferences: str = "preferences",
) -> dict[str, int]:
    """Write the artifact `examples`; counts of users, of rows by split and label, and quarantined.

    Within a user the positive row comes first. Raises TargetLeak or ArtifactMismatch if the
    preferences do not fit (`inputs.read_preferences`), EmptyDataset if no training user has one.
    """
    histories = read_histories(data)
    written = read_preferences(data, histories, preferences)
    item_ids = read_item_ids(data)
    recipe = Recipe(
        step="build-examples",
        definition={
            "prompt": SCORING_FINGERPRINT,
            "num_negatives": num_negatives,
            "seed": seed,
            "split_seed": SPLIT_SEED,
            "users_per_shard": USERS_PER_SHARD,
        },
        inputs={
            "items": Artifact(data, "items").manifest().fingerprint,
            "interactions": histories.fingerprint,
            preferences: written.manifest.fingerprint,
        },
    )
    writer = Artifact(data, ARTIFACT).write(recipe)
    if writer.finished:
        return Artifact(data, ARTIFACT).manifest().counts

    # The split is of all users: which part a user is in does not depend on who has a preference.
    split = split_users(list(histories.by_user))
    users = [user for user in written.by_user if split[user] != "test"]
    if not any(split[user] == "train" for user in users):
        raise EmptyDataset(
            f"none of the {len(written.by_user)} users with a preference is a training user; build "
            "preferences for more users"
        )
    index = {item_id: number for number, item_id in enumerate(item_ids)}
    names = ("users", "train", "validation", "positives", "negatives", "quarantined")
    counts = dict.fromkeys(names, 0)
    num_shards = 0
    for num_shards, chunk in enumerate(_chunks(users), start=1):
        rows: list[dict[str, Any]] = []
        refused: list[QuarantinedRow] = []
        for user_id in chunk:
            try:
                rows += _user_rows(
                    user_id, histories.by_user[user_id], item_ids, index, num_negatives, seed
                )
            except RowRefused as error:
                refused.append(QuarantinedRow(user_id, str(error)))
        for row in rows:
            row |= {"preference": written.by_user[row["user_id"]], "split": split[row["user_id"]]}
            counts[row["split"]] += 1
            counts["positives" if row["label"] else "negatives"] += 1
        counts["users"] += len(chunk) - len(refused)
        counts["quarantined"] += len(refused)
        writer.write_shard(num_shards - 1, pa.Table.from_pylist(rows, SCHEMA), refused)
    return writer.finish(num_shards, counts).counts


def _chunks(users: Sequence[UserId]) -> Iterator[Sequence[UserId]]:
    for start in range(0, len(users), USERS_PER_SHARD):
        yield users[start : start + USERS_PER_SHARD]


def _user_rows(
    user_id: UserId,
    interactions: Sequence[ItemId],
    item_ids: Sequence[ItemId],
    index: Mapping[ItemId, int],
    num_negatives: int,
    seed: int,
) -> list[dict[str, Any]]:
    _, target = leave_last_out(interactions)
    negatives = draw_uniform(
        user_id,
        [index[item_id] for item_id in interactions],
        num_items=len(item_ids),
        num_negatives=num_negatives,
        purpose="examples",
        seed=seed,
    )
    labelled = [(target, True), *((item_ids[number], False) for number in negatives)]
    return [{"user_id": user_id, "item_id": item, "label": label} for item, label in labelled]
