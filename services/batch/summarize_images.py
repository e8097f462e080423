"""Step 2, `msr summarize-images`: one sentence on every item, by the multimodal LLM.

Reads `items`, writes `summaries` (item_id, version, summary). Text-only items are described from
their title. An item that the engine refuses or finds nothing to say about is quarantined and can be
retried alone; an engine that is gone stops the step, and the next run goes on behind the last whole
shard. When the catalogue changes, items that did not change keep the summary they have.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import pyarrow as pa
from tqdm import tqdm

from services.core.artifacts import Artifact, ArtifactWriter, QuarantinedRow, Recipe
from services.core.errors import EngineRefused
from services.core.prompts import SUMMARY_FINGERPRINT, SUMMARY_LIMITS, summary_messages
from services.core.records import Item, ItemId
from services.engines.contract import Engine

SHARD_SIZE = 256
# Two shards in flight keep the engine's batches full while the last prompts of a shard finish.
SHARDS_IN_FLIGHT = 2
PROBE_SIZE = 16

SCHEMA = pa.schema([("item_id", pa.string()), ("version", pa.string()), ("summary", pa.string())])


@dataclass(frozen=True, slots=True)
class _Plan:
    """What this run starts from."""

    items: Artifact
    writer: ArtifactWriter
    num_items: int
    shard_size: int
    reusable: Mapping[str, str] = field(repr=False)  # item version -> summary

    @property
    def num_shards(self) -> int:
        return max(1, -(-self.num_items // self.shard_size))


async def run(
    data: str, engine: Engine, *, retry_quarantined: bool = False, shard_size: int = SHARD_SIZE
) -> dict[str, int]:
    """Summarize every item of `data`; counts of items, summaries and quarantined."""
    plan = _plan(data, engine, shard_size)
    if plan.writer.finished and not retry_quarantined:
        return dict(plan.writer.artifact.manifest().counts)
    slots = asyncio.Semaphore(SHARDS_IN_FLIGHT)
    with tqdm(total=plan.num_items, desc="summarize-images", unit="item") as progress:

        async def shard_job(shard: int, items: list[Item]) -> None:
            try:
                await _summarize_shard(plan, engine, shard, items, retry=retry_quarantined)
                progress.update(len(items))
            finally:
                slots.release()

        async with asyncio.TaskGroup() as jobs:
            for shard, items in enumerate(_shards_of_items(plan)):
                await slots.acquire()  # pictures of waiting shards stay on disk
                jobs.create_task(shard_job(shard, items))
    num_summaries = sum(plan.writer.read_shard(k).num_rows for k in range(plan.num_shards))
    counts = {
        "items": plan.num_items,
        "summaries": num_summaries,
        "quarantined": plan.num_items - num_summaries,
    }
    plan.writer.finish(plan.num_shards, counts)
    return counts


async def estimate(data: str, engine: Engine) -> dict[str, float]:
    """What a run would cost: prompts left, tokens at most, seconds by timing a few prompts."""
    plan = _plan(data, engine, SHARD_SIZE)
    left: list[Item] = []
    for shard, items in enumerate(_shards_of_items(plan)):
        if not plan.writer.has_shard(shard):
            left += [item for item in items if item.version not in plan.reusable]
    started = time.perf_counter()
    probed = left[:PROBE_SIZE]
    await asyncio.gather(*(_summarize(engine, item) for item in probed))
    seconds = time.perf_counter() - started
    return {
        "prompts": len(left),
        "max_new_tokens": len(left) * SUMMARY_LIMITS.max_new_tokens,
        "estimated_seconds": round(seconds * len(left) / max(1, len(probed)), 1),
    }


def _plan(data: str, engine: Engine, shard_size: int) -> _Plan:
    items = Artifact(data, "items")
    manifest = items.manifest()
    summaries = Artifact(data, "summaries")
    recipe = Recipe(
        step="summarize-images",
        definition={"prompt": SUMMARY_FINGERPRINT, "shard_size": shard_size},
        model=engine.identity.model,
        inputs={"items": manifest.fingerprint},
    )
    return _Plan(
        items=items,
        writer=summaries.write(recipe),
        num_items=manifest.counts["items"],
        shard_size=shard_size,
        reusable=_reusable(summaries, recipe),
    )


def _reusable(summaries: Artifact, recipe: Recipe) -> dict[str, str]:
    """Summaries by item version, if the same prompt and model wrote them for another catalogue."""
    if not summaries.exists():
        return {}
    earlier = summaries.manifest()
    if (earlier.definition, earlier.model) != (dict(recipe.definition), recipe.model):
        return {}
    rows = summaries.read(["version", "summary"])
    return dict(zip(rows["version"].to_pylist(), rows["summary"].to_pylist(), strict=True))


def _shards_of_items(plan: _Plan) -> Iterator[list[Item]]:
    """Consecutive lists of items; of the pictures, one shard of `items` is in memory."""
    stream = (
        Item(ItemId(row["item_id"]), row["title"], row["image"])
        for table in plan.items.shards(["item_id", "title", "image"])
        for batch in table.to_batches(max_chunksize=plan.shard_size)
        for row in batch.to_pylist()
    )
    yield list(islice(stream, plan.shard_size))  # an empty catalogue is one empty shard
    while shard := list(islice(stream, plan.shard_size)):
        yield shard


async def _summarize_shard(
    plan: _Plan, engine: Engine, shard: int, items: list[Item], *, retry: bool
) -> None:
    known = dict(plan.reusable)
    if plan.writer.has_shard(shard):
        if not (retry and plan.writer.read_quarantine(shard)):
            return
        done = plan.writer.read_shard(shard)
        known |= zip(done["version"].to_pylist(), done["summary"].to_pylist(), strict=True)

    async def summary_of(item: Item) -> str | EngineRefused:
        return known[item.version] if item.version in known else await _summarize(engine, item)

    results = await asyncio.gather(*(summary_of(item) for item in items))
    rows = []
    quarantined = []
    for item, result in zip(items, results, strict=True):
        if isinstance(result, EngineRefused):
            quarantined.append(QuarantinedRow(item.item_id, str(result)))
        else:
            rows.append({"item_id": item.item_id, "version": item.version, "summary": result})
    plan.writer.write_shard(shard, pa.Table.from_pylist(rows, SCHEMA), quarantined)


async def _summarize(engine: Engine, item: Item) -> str | EngineRefused:
    """The item's summary, or why there is none."""
    try:
        summary = await engine.generate(summary_messages(item), SUMMARY_LIMITS)
    except EngineRefused as error:
        return error
    if not summary:
        return EngineRefused(
            "the model wrote an empty summary; look at the item's title and picture, then run "
            "with --retry-quarantined"
        )
    return summary
