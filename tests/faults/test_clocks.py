"""Clocks that step backwards, and interactions older than what the preference covers."""

import asyncio
import time

from services.state import keys
from services.state.user_store import Store
from services.state.work_queue import load_backlog
from tests.builders import DigestEngine, a_history, an_interaction, offline, some_ids, the_user
from tests.worker.running import dying, work_to_the_end

HOUR_MS = 3_600_000


async def test_interactions_stamped_by_a_clock_that_stepped_back_take_their_place(store: Store):
    stamps = {"i1": 100, "i2": 101, "i3": 102, "i4": 103, "i5": 50, "i6": 51, "i7": 104}
    for item_id, at in stamps.items():
        await store.ingest([an_interaction(item_id, at=at)])
        await work_to_the_end(store, DigestEngine())

    user = await the_user(store)
    in_time = sorted(stamps, key=stamps.__getitem__)
    assert user.item_ids == tuple(in_time)
    assert (user.state, user.preference) == await offline(in_time)


async def test_a_clock_of_redis_that_steps_back_delays_no_update(store: Store):
    """The stream then holds entries from the future; what is added stands after them."""
    future_id = f"{time.time_ns() // 1_000_000 + HOUR_MS}-0"
    events = keys.events(keys.partition_of("u1"))
    await store.append_history([an_interaction("i1")])
    await store.connection.call("XADD", events, future_id, "user_id", "u1", "version", 1)
    await work_to_the_end(store, DigestEngine())

    await store.ingest([an_interaction("i2", at=9)])
    await work_to_the_end(store, DigestEngine())

    assert (await the_user(store)).preference == (await offline(["i1", "i2"]))[1]
    assert (await load_backlog(store.connection)).lag_seconds == 0


async def test_an_interaction_older_than_the_checkpoint_counts_though_its_worker_dies(
    store: Store,
):
    history = a_history(some_ids(7))
    await store.ingest(history[1:])
    await work_to_the_end(store, DigestEngine())
    await store.ingest(history[:1])
    engine = DigestEngine(gate=asyncio.Event())
    async with dying(store, engine):
        await engine.asked.wait()

    await work_to_the_end(store, DigestEngine())

    user = await the_user(store)
    assert (user.state, user.preference) == await offline(some_ids(7))
