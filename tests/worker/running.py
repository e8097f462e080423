"""Workers under test: quick to retry, and watched until nothing is left to do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from services.engines.contract import Engine
from services.state import keys
from services.state.user_store import Store
from services.worker.limits import WorkerLimits
from services.worker.main import Worker

QUICK = WorkerLimits(
    first_pause_seconds=0.01,
    longest_pause_seconds=0.05,
    claim_after_seconds=0.2,
    claim_every_seconds=0.05,
    lease_seconds=0.2,
    block_seconds=0.02,
)


@contextlib.asynccontextmanager
async def working(store: Store, engine: Engine, **limits: float) -> AsyncIterator[asyncio.Event]:
    """A worker runs inside the block and is stopped at its end; gives the event that stops it."""
    stop = asyncio.Event()
    worker = Worker(store, engine, replace(QUICK, **limits))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.run(stop))
        try:
            yield stop
        finally:
            stop.set()


@contextlib.asynccontextmanager
async def dying(store: Store, engine: Engine) -> AsyncIterator[None]:
    """A worker runs inside the block and dies at its end, in the middle of whatever it does."""
    task = asyncio.create_task(Worker(store, engine, QUICK).run(asyncio.Event()))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def work_to_the_end(store: Store, engine: Engine, **limits: float) -> None:
    """A worker runs until no entry is left."""
    async with working(store, engine, **limits):
        await until(lambda: nothing_waits(store))


async def nothing_waits(store: Store) -> bool:
    """Whether no entry is queued or being worked on."""
    partitions = range(keys.NUM_PARTITIONS)
    streams = [keys.events(p) for p in partitions] + [keys.item_queue(p) for p in partitions]
    lengths = await store.connection.call_all([("XLEN", stream) for stream in streams])
    return sum(lengths) == 0


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Look again and again; the limit only keeps a broken test from hanging."""
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - Redis sets no event for it
            await asyncio.sleep(0.005)
