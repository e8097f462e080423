"""Small finished artifacts for the steps under test, and an engine that echoes its prompts."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from services.core.artifacts import Artifact, Recipe
from services.core.errors import EngineRefused, EngineUnavailable
from services.core.prompts import GenerationLimits, Messages
from services.core.records import item_version
from services.core.scoring import AnswerLogprobs
from services.engines.contract import EngineIdentity


def write_items(
    data: str,
    titles: Mapping[str, str],
    images: Mapping[str, bytes] = {},
    covers: Mapping[str, bytes] | None = None,
) -> None:
    """An `items` artifact with these titles by item id; items without an image are text-only.

    Without `covers` it is one of an earlier version, which kept none for people.
    """
    rows = [
        {
            "item_index": index,
            "item_id": item_id,
            "title": title,
            "image": images.get(item_id),
            "version": item_version(title, images.get(item_id)),
        }
        for index, (item_id, title) in enumerate(titles.items())
    ]
    schema = pa.schema(
        [
            ("item_index", pa.int32()),
            ("item_id", pa.string()),
            ("title", pa.string()),
            ("image", pa.binary()),
            ("version", pa.string()),
        ]
    )
    table = pa.Table.from_pylist(rows, schema)
    if covers is not None:
        shown = pa.array([covers.get(item_id) for item_id in titles], pa.binary())
        table = table.append_column("cover", shown)
    definition = {"titles": dict(titles), "image_size": 56}
    _finish(data, "items", definition, table, {"items": len(rows)})


def write_interactions(data: str, histories: Mapping[str, Sequence[str]]) -> None:
    """An `interactions` artifact with these item ids, oldest first, by user id."""
    rows = [
        {
            "user_index": index,
            "user_id": user_id,
            "item_ids": list(history),
            "timestamps_ms": [1000 * (k + 1) for k in range(len(history))],
        }
        for index, (user_id, history) in enumerate(histories.items())
    ]
    schema = pa.schema(
        [
            ("user_index", pa.int32()),
            ("user_id", pa.string()),
            ("item_ids", pa.list_(pa.string())),
            ("timestamps_ms", pa.list_(pa.int64())),
        ]
    )
    definition = {"histories": {user: list(history) for user, history in histories.items()}}
    counts = {"users": len(rows), "interactions": sum(map(len, histories.values()))}
    _finish(data, "interactions", definition, pa.Table.from_pylist(rows, schema), counts)


def _finish(
    data: str, name: str, definition: Mapping[str, object], rows: pa.Table, counts: dict[str, int]
) -> None:
    writer = Artifact(data, name).write(Recipe("prepare-catalogue", definition))
    writer.write_shard(0, rows)
    writer.finish(1, counts)


class EchoEngine:
    """Answers with what the prompt quotes, so that a test can see which texts went in.

    `refuse` and `fail_after` show the two faults a step must tell apart: a prompt that is not
    taken, and an engine that is gone.
    """

    num_shortened = 0

    def __init__(self, *, refuse: str = "", fail_after: int | None = None) -> None:
        self.identity = EngineIdentity(model="echo", adapter="")
        self.prompts: list[str] = []
        self.refuse = refuse
        self.fail_after = fail_after

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        if self.fail_after is not None and len(self.prompts) >= self.fail_after:
            raise EngineUnavailable("the engine is gone")
        text = messages[0].text
        self.prompts.append(text)
        if self.refuse and self.refuse in text:
            raise EngineRefused(f"will not take {self.refuse}")
        return "+".join(text.split('"')[1::2])

    async def score(self, messages: Messages) -> AnswerLogprobs:
        return AnswerLogprobs(yes=-float(len(messages[0].text)), no=-1.0)

    async def close(self) -> None:
        """Nothing is held."""
