"""Step 2, `msr summarize-images`: the multimodal LLM describes every item in one sentence.

Reads `items`, writes `summaries` (item_id, version, summary, and whether the token limit ended it:
null if an older version wrote it). Text-only items are described from their title. An item that the
engine refuses, or gives no text for, is quarantined and can be retried. An unavailable engine stops
the step; the next run makes the missing shards. When the catalogue changes, unchanged items keep
their summary. The manifest says how much the summaries vary (`text_statistics.py`); the step warns
if they do not.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa

from services.batch.text_report import reported, warned
from services.core.artifacts import Artifact, QuarantinedRow, Recipe, absolute_root
from services.core.errors import EngineRefused
from services.core.prompts import SUMMARY_FINGERPRINT, SUMMARY_LIMITS, summary_messages
from services.core.records import Item, ItemId
from services.engines.contract import Engine, hit_limit
from services.sharding.ray_workers import RayWorkers
from services.sharding.sharded_job import Advance
from services.sharding.sharded_step import PROBE_SIZE, ShardedStep, estimate_cost

SHARD_SIZE = 256

SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("version", pa.string()),
        ("summary", pa.string()),
        ("hit_limit", pa.bool_()),
    ]
)
_COLUMNS = ("version", "summary")


@dataclass(frozen=True, slots=True)
class _Summary:
    """An item's summary; `hit_limit` is None if an older version wrote it."""

    text: str
    hit_limit: bool | None


@dataclass(frozen=True, slots=True)
class _Request:
    """The arguments of a run; a Ray worker gets nothing else."""

    data: str
    model: str
    model_name: str
    shard_size: int
    retry: bool = False


@dataclass(frozen=True, kw_only=True)
class _Plan(ShardedStep[_Request]):
    """What a run starts from, and what it does to each shard of items."""

    items: Artifact
    reusable: Mapping[str, _Summary] = field(repr=False)  # by item version

    @classmethod
    def plan(cls, request: _Request) -> Self:
        """See `ShardedStep.plan`."""
        items = Artifact(request.data, "items")
        manifest = items.manifest()
        summaries = Artifact(request.data, "summaries")
        recipe = Recipe(
            step="summarize-images",
            definition={"prompt": SUMMARY_FINGERPRINT, "shard_size": request.shard_size},
            model=request.model,
            inputs={"items": manifest.fingerprint},
        )
        return cls(
            request=request,
            writer=summaries.write(recipe, model_name=request.model_name),
            num_rows=manifest.counts["items"],
            shard_size=request.shard_size,
            retry=request.retry,
            items=items,
            reusable=_reusable(summaries, recipe),
        )

    def read_items(self, shard: int) -> Iterator[Item]:
        for table in self.items.read_rows(*self.bounds(shard), ["item_id", "title", "image"]):
            for row in table.to_pylist():
                yield Item(ItemId(row["item_id"]), row["title"], row["image"])

    async def run_shard(self, engine: Engine, shard: int, advance: Advance) -> None:
        """Summarize the items of a shard that have no summary, and write it."""
        items = list(self.read_items(shard))
        known = self._known(shard)

        async def summary_of(item: Item) -> _Summary | EngineRefused:
            found = known.get(item.version)
            summary = found if found is not None else await _summarize(engine, item)
            advance(1)
            return summary

        summaries = await asyncio.gather(*(summary_of(item) for item in items))
        self._write(shard, items, summaries)

    def _known(self, shard: int) -> Mapping[str, _Summary]:
        """Summaries by item version; also those of the shard if it is written already."""
        if not self.has_shard(shard):
            return self.reusable
        done = self.writer.read_shard(shard, _COLUMNS, ["hit_limit"])
        return {**self.reusable, **_by_version(done)}

    def _write(
        self, shard: int, items: Sequence[Item], summaries: Sequence[_Summary | EngineRefused]
    ) -> None:
        rows = []
        quarantined = []
        for item, summary in zip(items, summaries, strict=True):
            if isinstance(summary, EngineRefused):
                quarantined.append(QuarantinedRow(item.item_id, str(summary)))
            else:
                rows.append(
                    {
                        "item_id": item.item_id,
                        "version": item.version,
                        "summary": summary.text,
                        "hit_limit": summary.hit_limit,
                    }
                )
        self.writer.write_shard(shard, pa.Table.from_pylist(rows, SCHEMA), quarantined)


async def run(
    data: str,
    engine: Engine | RayWorkers,
    *,
    retry_quarantined: bool = False,
    shard_size: int = SHARD_SIZE,
) -> dict[str, Any]:
    """Summarize every item of `data`; counts of items, summaries and quarantined, of prompts that
    this run shortened, how much the `texts` vary, and a `caveat` if the model does not know this
    catalogue.
    """
    plan = _Plan.plan(_request(data, engine, shard_size=shard_size, retry=retry_quarantined))
    caveat = warned(data, engine.identity.card)
    if plan.writer.finished and not retry_quarantined:
        done = plan.writer.artifact
        texts = reported(done.text_statistics())
        return {**done.manifest().counts, "shortened": 0, **texts, **caveat}
    num_shortened = await plan.run_left(engine, desc="summarize-images", unit="item")
    num_summaries = sum(plan.writer.read_shard(k).num_rows for k in range(plan.num_shards))
    plan.require_success(num_summaries)
    counts = {
        "items": plan.num_rows,
        "summaries": num_summaries,
        "quarantined": plan.num_rows - num_summaries,
    }
    statistics = plan.writer.count_texts(plan.num_shards, counts["quarantined"])
    plan.writer.finish(plan.num_shards, counts, statistics)
    return {**counts, "shortened": num_shortened, **reported(statistics), **caveat}


async def estimate(data: str, engine: Engine) -> dict[str, float]:
    """What a run would cost; see `estimate_cost`."""
    plan = _Plan.plan(_request(data, engine))
    num_left = 0
    probed: list[Item] = []
    for shard in plan.left():
        for item in plan.read_items(shard):
            if item.version not in plan.reusable:
                num_left += 1
                probed += [item] * (len(probed) < PROBE_SIZE)
    probes = [_summarize(engine, item) for item in probed]
    return await estimate_cost(num_left, probes, max_new_tokens=SUMMARY_LIMITS.max_new_tokens)


def _request(
    data: str, engine: Engine | RayWorkers, *, shard_size: int = SHARD_SIZE, retry: bool = False
) -> _Request:
    model = engine.identity
    return _Request(absolute_root(data), model.model, model.name, shard_size, retry)


def _reusable(summaries: Artifact, recipe: Recipe) -> dict[str, _Summary]:
    """Summaries by item version, if the same prompt and model wrote them for another catalogue."""
    if not summaries.exists():
        return {}
    earlier = summaries.manifest()
    if (earlier.definition, earlier.model) != (dict(recipe.definition), recipe.model):
        return {}
    found: dict[str, _Summary] = {}
    for table in summaries.shards(_COLUMNS, ["hit_limit"]):
        found |= _by_version(table)
    return found


def _by_version(rows: pa.Table) -> dict[str, _Summary]:
    """Written summaries by item version."""
    return {
        row["version"]: _Summary(row["summary"], row.get("hit_limit")) for row in rows.to_pylist()
    }


async def _summarize(engine: Engine, item: Item) -> _Summary | EngineRefused:
    """The item's summary, or why there is none."""
    try:
        summary = await engine.generate(summary_messages(item), SUMMARY_LIMITS)
    except EngineRefused as error:
        return error
    if not summary:
        return EngineRefused(
            "the model wrote an empty summary; look at the item's title and image, then run "
            "with --retry-quarantined"
        )
    return _Summary(str(summary), hit_limit(summary))
