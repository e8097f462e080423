"""A small finished data folder: covers, histories and preferences, for the steps under test."""

import io
from collections.abc import Mapping, Sequence
from functools import cache

import pyarrow as pa
from PIL import Image

from model_training.data.inputs import open_inputs
from model_training.data.protocols import find_protocol
from model_training.data.ranking_tasks import EvaluatedSplit, FrozenTasks, load_ranking_tasks
from services.core.artifacts import Artifact, Recipe
from services.core.images import prepare_image
from services.core.prompts import PREFERENCE_FINGERPRINT
from services.core.recurrence import BLOCK_SIZE
from tests.artifact_builders import write_interactions, write_items

NUM_ITEMS = 40
NUM_USERS = 30
COLORS = ("red", "green", "blue", "yellow", "black")


@cache
def a_cover(color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (56, 56), color).save(file, "PNG")
    return prepare_image(file.getvalue(), 56)


def some_histories(num_users: int = NUM_USERS) -> dict[str, list[str]]:
    """Five interactions a user; neighbors in the numbering share items."""
    return {
        f"u{user}": [f"i{(3 * user + step * step) % NUM_ITEMS}" for step in range(5)]
        for user in range(num_users)
    }


def write_world(data: str, *, users: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Items (every fifth without a cover), interactions, and preferences of `users` (all)."""
    titles = {f"i{number}": f"a thing of kind {number}" for number in range(NUM_ITEMS)}
    covers = {
        f"i{number}": a_cover(COLORS[number % 5]) for number in range(NUM_ITEMS) if number % 5
    }
    histories = some_histories()
    write_items(data, titles, covers)
    write_interactions(data, histories)
    kept = histories if users is None else {user: histories[user] for user in users}
    write_preferences(data, {user: history[:-1] for user, history in kept.items()})
    return histories


def frozen_tasks(
    data: str, protocol: str = "chrono-uniform", split: EvaluatedSplit = "test"
) -> FrozenTasks:
    return load_ranking_tasks(open_inputs(data), find_protocol(protocol), split)


def write_preferences(
    data: str, covered: Mapping[str, Sequence[str]], *, name: str = "preferences", **definition: str
) -> None:
    """A preferences artifact that says it covers these items; `definition` overrides fields."""
    rows = [
        {"user_id": user, "item_ids": list(items), "preference": f"Likes what {user} likes."}
        for user, items in covered.items()
    ]
    schema = pa.schema(
        [
            ("user_id", pa.string()),
            ("item_ids", pa.list_(pa.string())),
            ("preference", pa.string()),
        ]
    )
    full = {
        "cut": "last",
        "variant": "recurrent",
        "prompt": PREFERENCE_FINGERPRINT,
        "block_size": BLOCK_SIZE,
        "covered": {user: list(items) for user, items in covered.items()},
        **definition,
    }
    inputs = {
        artifact: Artifact(data, artifact).manifest().fingerprint
        for artifact in ("items", "interactions")
    }
    writer = Artifact(data, name).write(Recipe("build-preferences", full, inputs=inputs))
    writer.write_shard(0, pa.Table.from_pylist(rows, schema))
    writer.finish(1, {"users": len(rows)})
