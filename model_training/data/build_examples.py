"""Step 5, `msr build-examples`: questions with their answers, for fine-tuning.

Reads `items`, `interactions`, `preferences` and, for hard negatives, `retrieval`; writes
`examples`. Every training and validation user with a preference gives one positive row (the target
item) and some negative rows (items never taken). Test users give none. A preference that has seen
its target is refused.

Training users alone get hard negatives: validation users are asked what evaluation asks, so that
the metrics and the calibration of all adapters come from the same kind of rows.

A row names its item; the picture is joined when a row is used.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pyarrow as pa
from tqdm import tqdm

from model_training.data.hard_negatives import HardNegatives
from model_training.data.inputs import read_histories, read_item_ids, read_preferences
from model_training.data.negative_sampling import draw_uniform
from services.core.artifacts import Artifact, QuarantinedRow, Recipe
from services.core.errors import EmptyDataset, RowRefused
from services.core.prompts import SCORING_FINGERPRINT
from services.core.records import ItemId, UserId
from services.core.splits import SPLIT_SEED, Split, leave_last_out, split_users
from services.retrieval.cheap_rankers import ARTIFACT as RETRIEVAL

ARTIFACT = "examples"
# As many as in evaluation: training takes the first few of them, validation and calibration all.
DEFAULT_NUM_NEGATIVES = 20
DEFAULT_SEED = 2025
USERS_PER_SHARD = 1000

SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("preference", pa.string()),
        ("label", pa.bool_()),
        ("split", pa.string()),
        ("kind", pa.string()),
    ]
)

Kind = Literal["positive", "uniform", "hard"]


def run(
    data: str,
    *,
    num_negatives: int = DEFAULT_NUM_NEGATIVES,
    num_hard_negatives: int = 0,
    seed: int = DEFAULT_SEED,
    preferences: str = "preferences",
) -> dict[str, int]:
    """Write the artifact `examples`; counts of users, of rows by split and kind, and quarantined.

    Within a user the positive row comes first, then `num_negatives` uniform ones, then, of training
    users, `num_hard_negatives` hard ones. Raises TargetLeak or ArtifactMismatch if the preferences
    do not fit (`inputs.read_preferences`), EmptyDataset if no training user has one; if hard
    negatives are asked for, ArtifactMissing or ArtifactMismatch unless the cheap rankers fit.
    """
    histories = read_histories(data)
    written = read_preferences(data, histories, preferences)
    rankers = HardNegatives(data, seed=seed) if num_hard_negatives else None
    recipe = Recipe(
        step="build-examples",
        definition={
            "prompt": SCORING_FINGERPRINT,
            "num_negatives": num_negatives,
            "num_hard_negatives": num_hard_negatives,
            "seed": seed,
            "split_seed": SPLIT_SEED,
            "users_per_shard": USERS_PER_SHARD,
        },
        inputs={
            "items": Artifact(data, "items").manifest().fingerprint,
            "interactions": histories.fingerprint,
            preferences: written.manifest.fingerprint,
            **({RETRIEVAL: rankers.fingerprint} if rankers is not None else {}),
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
    num_shards = 0
    names = ("users", "train", "validation", "positive", "uniform", "hard", "quarantined")
    counts = dict.fromkeys(names, 0)
    item_ids = read_item_ids(data)
    index = {item_id: number for number, item_id in enumerate(item_ids)}
    for num_shards, chunk in enumerate(_chunks(users), start=1):
        rows: list[dict[str, Any]] = []
        refused: list[QuarantinedRow] = []
        for user_id in tqdm(chunk, desc=f"shard {num_shards}", unit="user", disable=None):
            interactions = histories.by_user[user_id]
            try:
                drawn = draw_uniform(
                    user_id,
                    [index[item_id] for item_id in interactions],
                    num_items=len(item_ids),
                    num_negatives=num_negatives,
                    purpose="examples",
                    seed=seed,
                )
                hard: list[ItemId] = []
                if rankers is not None and split[user_id] == "train":
                    hard = rankers.draw(user_id, interactions, num_hard_negatives)
            except RowRefused as error:
                refused.append(QuarantinedRow(user_id, str(error)))
                continue
            _, target = leave_last_out(interactions)
            asked: list[tuple[Kind, ItemId]] = [
                ("positive", target),
                *(("uniform", item_ids[number]) for number in drawn),
                *(("hard", item_id) for item_id in hard),
            ]
            rows += _rows(user_id, written.by_user[user_id], split[user_id], asked)
            counts[split[user_id]] += len(asked)
            for kind, _ in asked:
                counts[kind] += 1
        counts["users"] += len(chunk) - len(refused)
        counts["quarantined"] += len(refused)
        writer.write_shard(num_shards - 1, pa.Table.from_pylist(rows, SCHEMA), refused)
    return writer.finish(num_shards, counts).counts


def _chunks(users: Sequence[UserId]) -> Iterator[Sequence[UserId]]:
    for start in range(0, len(users), USERS_PER_SHARD):
        yield users[start : start + USERS_PER_SHARD]


def _rows(
    user_id: UserId, preference: str, split: Split, asked: Sequence[tuple[Kind, ItemId]]
) -> list[dict[str, Any]]:
    return [
        {
            "user_id": user_id,
            "item_id": item_id,
            "preference": preference,
            "label": kind == "positive",
            "split": split,
            "kind": kind,
        }
        for kind, item_id in asked
    ]
