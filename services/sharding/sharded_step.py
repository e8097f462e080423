"""A step that is done in shards: what its runs start from, which shards are left, what it costs.

Its rows (items, users) are divided into shards of one size. A run does the shards that no earlier
run has written, here or on Ray workers (`ray_workers.py`). A worker gets the step's request and
reads the rest from the data folder.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tqdm import tqdm

from services.core.artifacts import ArtifactWriter
from services.core.errors import ModelUnusable
from services.engines.contract import Engine
from services.sharding.ray_workers import RayWorkers
from services.sharding.sharded_job import Advance, run_here

Request = TypeVar("Request")

# So many prompts are timed for an estimate.
PROBE_SIZE = 16


@dataclass(frozen=True, kw_only=True)
class ShardedStep(ABC, Generic[Request]):
    """Implements `sharded_job.ShardJob`. A step adds what it reads, and what it does to a shard.

    `retry` also does written shards again that have quarantined rows.
    """

    request: Request
    writer: ArtifactWriter
    num_rows: int
    shard_size: int
    retry: bool = False

    @classmethod
    @abstractmethod
    def plan(cls, request: Request) -> "ShardedStep[Request]":
        """Read what the request needs from the data folder."""

    @abstractmethod
    async def run_shard(self, engine: Engine, shard: int, advance: Advance) -> None:
        """Do one shard and write it; `advance(n)` reports progress in the unit of `num_units`."""

    def __reduce__(self) -> tuple[Callable[[Request], object], tuple[Request]]:
        """Pickled as the request, for Ray workers."""
        return self.plan, (self.request,)

    @property
    def num_shards(self) -> int:
        """At least one."""
        return max(1, -(-self.num_rows // self.shard_size))

    def bounds(self, shard: int) -> tuple[int, int]:
        """A shard's first row, and the first row after it."""
        first = shard * self.shard_size
        return first, min(first + self.shard_size, self.num_rows)

    def num_units(self, shard: int) -> int:
        """How much of the step's progress a shard is; by default its rows."""
        start, stop = self.bounds(shard)
        return stop - start

    def has_shard(self, shard: int) -> bool:
        """Whether the shard is written."""
        return self.writer.has_shard(shard)

    def left(self) -> list[int]:
        """The shards that are not written, and with `retry` those with quarantined rows."""
        return [
            shard
            for shard in range(self.num_shards)
            if not self.has_shard(shard) or (self.retry and self.writer.read_quarantine(shard))
        ]

    def require_success(self, num_done: int) -> None:
        """ModelUnusable, with the first reason, if none of the step's rows was done."""
        if num_done or not self.num_rows:
            return
        shards = range(self.num_shards)
        first = next(row for shard in shards for row in self.writer.read_quarantine(shard))
        raise ModelUnusable(
            f"none of {self.num_rows:,} rows was done; {first.row}: {first.reason}; use a model "
            "that answers these prompts, and run the step with --retry-quarantined"
        )

    async def run_left(self, engine: Engine | RayWorkers, *, desc: str, unit: str) -> int:
        """Do the shards that are left, under a progress bar; how many prompts were shortened."""
        left = self.left()
        total = sum(map(self.num_units, range(self.num_shards)))
        done = total - sum(map(self.num_units, left))
        with tqdm(total=total, initial=done, desc=desc, unit=unit) as progress:
            if isinstance(engine, RayWorkers):
                return await engine.run_shards(self, left, progress.update)
            return await run_here(engine, self, left, progress.update)


async def estimate_cost(
    num_prompts: int, probes: Sequence[Awaitable[object]], *, max_new_tokens: int
) -> dict[str, float]:
    """What a run would cost: prompts left, tokens at most, seconds by timing the probes."""
    started = time.perf_counter()
    await asyncio.gather(*probes)
    seconds = time.perf_counter() - started
    return {
        "prompts": num_prompts,
        "max_new_tokens": num_prompts * max_new_tokens,
        "estimated_seconds": round(seconds * num_prompts / max(1, len(probes)), 1),
    }
