"""The retrieval stage over a synthetic catalogue of a given size: latency, memory, time to load."""

import gc
import tempfile
import time
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.programs import resident_bytes
from model_training.fit_retrieval import ITEMS_PER_SHARD, SCHEMA
from services.core.artifacts import Artifact, Recipe
from services.core.records import ItemId
from services.retrieval.rankers import ARTIFACT, CheapRankers

NUM_NEIGHBORS = 50  # MicroLens-50k has 40 an item after its k-core; popular items have hundreds
HISTORY_LENGTH = 30
NUM_RETRIEVED = 20
NUM_REQUESTS = 200


def measure_retrieval(num_items: int) -> dict[str, Any]:
    """Write an artifact of `num_items`, load it and retrieve for many histories.

    Meant for a process of its own: what it holds after loading, over before, is the rankers'.
    """
    with tempfile.TemporaryDirectory() as data:
        write_synthetic(data, NUM_NEIGHBORS)
        CheapRankers.load(data)  # what reading needs at all is not the size's
        write_synthetic(data, num_items)
        before = _held_bytes()
        started = time.perf_counter()
        rankers = CheapRankers.load(data)
        load_seconds = time.perf_counter() - started
        held = _held_bytes() - before
    draw = Random(num_items)

    def retrieve() -> None:
        history = [_item_id(draw.randrange(num_items)) for _ in range(HISTORY_LENGTH)]
        rankers.retrieve(history, limit=NUM_RETRIEVED, exclude=history)

    return {
        "size": num_items,
        **time_calls(retrieve, NUM_REQUESTS),
        "bytes": held,
        "bytes_each": round(held / num_items),
        "load_seconds": round(load_seconds, 2),
    }


def write_synthetic(data: str, num_items: int) -> None:
    """An artifact `retrieval` of random neighbors and a popularity with a long tail."""
    draw = np.random.default_rng(num_items)
    writer = Artifact(data, ARTIFACT).write(Recipe("synthetic", {"num_items": num_items}))
    starts = range(0, num_items, ITEMS_PER_SHARD)
    for shard, start in enumerate(starts):
        rows = np.arange(start, min(start + ITEMS_PER_SHARD, num_items))
        writer.write_shard(shard, _shard(draw, rows, num_items))
    writer.finish(len(starts), {"items": num_items})


def time_calls(call: Callable[[], None], num_calls: int) -> dict[str, float]:
    """Median and 95th percentile of the milliseconds of one call, after a tenth untimed."""
    for _ in range(num_calls // 10):
        call()
    seconds = []
    for _ in range(num_calls):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return percentiles(seconds)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds."""
    median, high = np.percentile(seconds, (50, 95)) * 1000
    return {"median_ms": round(float(median), 3), "p95_ms": round(float(high), 3)}


def _held_bytes() -> int:
    """Memory in use, without what Arrow keeps for its next allocation."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    return resident_bytes()


def _shard(draw: np.random.Generator, rows: "np.ndarray[Any, Any]", num_items: int) -> pa.Table:
    num_values = len(rows) * NUM_NEIGHBORS
    offsets = pa.array(np.arange(0, num_values + 1, NUM_NEIGHBORS, dtype=np.int32))
    neighbors = draw.integers(num_items, size=num_values, dtype=np.int32)
    weights = draw.random(num_values, dtype=np.float32)
    columns = [
        pa.array([_item_id(row) for row in rows], pa.string()),
        pa.array(rows.astype(np.int32)),
        pa.array(draw.zipf(1.5, len(rows)).clip(max=10**6)),
        pa.ListArray.from_arrays(offsets, pa.array(neighbors)),
        pa.ListArray.from_arrays(offsets, pa.array(weights)),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _item_id(number: int) -> ItemId:
    return ItemId(f"item-{number:07d}")
