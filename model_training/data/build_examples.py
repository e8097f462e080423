"""Step 5, `msr build-examples`: the questions and answers that fine-tuning learns from.

Reads `items`, `interactions`, `preferences` and, for hard negatives, `retrieval`; writes
`examples`. Every training and validation user with a preference gives one positive row (the target
item) and some negative rows (items never taken). Test users give none. A preference that has seen
its target is refused.

Only training users get hard negatives. Validation rows are drawn as in evaluation, so the metrics
and the calibration of all adapters come from the same kind of rows.

A row names its item; the image is joined when a row is used.
"""

from collections import Counter
from dataclasses import replace
from typing import Any, Literal

import pyarrow as pa
from tqdm import tqdm

from model_training.data.inputs import open_inputs
from model_training.data.negative_sampling import Draw, draw_hard, draw_uniform
from services.core.artifacts import Artifact, QuarantinedRow, Recipe
from services.core.errors import EmptyDataset, RowRefused
from services.core.prompts import SCORING_FINGERPRINT
from services.core.records import ItemId
from services.core.splits import SPLIT_SEED, leave_last_out
from services.retrieval.cheap_rankers import ARTIFACT as RETRIEVAL
from services.retrieval.cheap_rankers import CheapRankers

ARTIFACT = "examples"
# As in evaluation. Training takes the first few of them, validation and calibration take all.
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
    """Write the artifact `examples`; returns counts of users, of rows by split and kind, and of
    quarantined users.

    The rows of a user are the positive, `num_negatives` uniform negatives and, for training users,
    `num_hard_negatives` hard ones. Raises TargetLeak or ArtifactMismatch if the preferences do not
    fit (`Inputs.read_preferences`), EmptyDataset if no training user has one, and for hard
    negatives ArtifactMissing or ArtifactMismatch unless the cheap rankers fit.
    """
    inputs = open_inputs(data)
    written = inputs.read_preferences(preferences)
    rankers = None
    if num_hard_negatives:
        inputs.require_same_inputs(Artifact(data, RETRIEVAL).manifest())
        rankers = CheapRankers.load(data)
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
            **inputs.fingerprints,
            preferences: written.manifest.fingerprint,
            **({RETRIEVAL: rankers.fingerprint} if rankers is not None else {}),
        },
    )
    writer = Artifact(data, ARTIFACT).write(recipe)
    if writer.finished:
        return Artifact(data, ARTIFACT).manifest().counts

    # All users are split, so a user's split does not depend on who has a preference.
    split = inputs.split
    users = [user for user in written.by_user if split[user] != "test"]
    if not any(split[user] == "train" for user in users):
        raise EmptyDataset(
            f"none of the {len(written.by_user)} users with a preference is a training user; build "
            "preferences for more users"
        )
    names = ("users", "train", "validation", "positive", "uniform", "hard", "quarantined")
    counts = Counter(dict.fromkeys(names, 0))
    starts = range(0, len(users), USERS_PER_SHARD)
    for shard, start in enumerate(starts):
        rows: list[dict[str, Any]] = []
        refused: list[QuarantinedRow] = []
        chunk = users[start : start + USERS_PER_SHARD]
        for user_id in tqdm(chunk, desc=f"shard {shard + 1}", unit="user", disable=None):
            interactions = inputs.histories[user_id]
            draw = Draw(user_id, inputs.indices(interactions), num_negatives, "examples", seed)
            try:
                drawn = draw_uniform(draw, len(inputs.item_ids))
                hard: list[ItemId] = []
                if rankers is not None and split[user_id] == "train":
                    hard_draw = replace(draw, num_negatives=num_hard_negatives, purpose="hard")
                    hard = draw_hard(hard_draw, rankers, interactions)
            except RowRefused as error:
                refused.append(QuarantinedRow(user_id, str(error)))
                continue
            _, target = leave_last_out(interactions)
            labeled: list[tuple[Kind, ItemId]] = [
                ("positive", target),
                *(("uniform", inputs.item_ids[index]) for index in drawn),
                *(("hard", item_id) for item_id in hard),
            ]
            rows += [
                {
                    "user_id": user_id,
                    "item_id": item_id,
                    "preference": written.by_user[user_id],
                    "label": kind == "positive",
                    "split": split[user_id],
                    "kind": kind,
                }
                for kind, item_id in labeled
            ]
        for row in rows:
            counts.update((row["split"], row["kind"]))
        counts.update(users=len(chunk) - len(refused), quarantined=len(refused))
        writer.write_shard(shard, pa.Table.from_pylist(rows, SCHEMA), refused)
    return writer.finish(len(starts), dict(counts)).counts
