"""The shards of a step, and how one engine does them in this process.

A shard is what a step writes at once: one engine does it, and a failure leaves nothing of it. The
same method does a shard here and on a Ray worker (`ray_workers.py`).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from services.engines.contract import Engine
from services.engines.refusals import StopsIfAllRefused

# Two shards in flight keep the engine's batches full while the last prompts of a shard finish.
SHARDS_IN_FLIGHT = 2

Advance = Callable[[int], None]


class ShardJob(Protocol):
    """What a step does to its shards; for Ray it must be picklable, and small.

    With `retry` it does again what was refused.
    """

    @property
    def retry(self) -> bool:
        """Whether this run retries what earlier ones were refused."""
        ...

    async def run_shard(self, engine: Engine, shard: int, advance: Advance) -> None:
        """Do one shard and write it; `advance(n)` reports progress in the step's own unit."""
        ...

    def has_shard(self, shard: int) -> bool:
        """Whether it is written."""
        ...


async def run_here(engine: Engine, job: ShardJob, shards: Sequence[int], advance: Advance) -> int:
    """Do the shards in this process; how many prompts were shortened for being too long.

    The first error of the engine is raised; shards that are written stay. ModelUnusable if the
    engine refuses its first prompts one and all, unless they were refused before.
    """
    before = engine.num_shortened
    asked = engine if job.retry else StopsIfAllRefused(engine)
    waiting = iter(shards)

    async def work() -> None:
        for shard in waiting:
            await job.run_shard(asked, shard, advance)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(SHARDS_IN_FLIGHT):
                tasks.create_task(work())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return engine.num_shortened - before
