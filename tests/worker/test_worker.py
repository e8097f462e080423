"""Faults: what the worker waits for, what it gives up, and what never gets lost."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.core.errors import (
    EngineError,
    EngineOverloaded,
    EngineTimeout,
    EngineUnavailable,
    StateUnavailable,
)
from services.core.records import Interaction, UserId
from services.state import keys
from services.state.embedded_redis.server import EmbeddedRedis
from services.state.user_store import Store
from services.state.work_queue import WorkQueue
from services.worker.main import Worker
from tests.builders import (
    DigestEngine,
    a_history,
    an_interaction,
    offline,
    put_items,
    some_ids,
    the_user,
    updated_by_hand,
)
from tests.worker.running import QUICK, nothing_waits, until, work_to_the_end, working

USER = UserId("u1")


@pytest.fixture(autouse=True)
async def catalogue(store: Store) -> None:
    await put_items(store, [*some_ids(6), "poison"])


async def test_a_user_who_always_fails_becomes_a_dead_letter_and_blocks_nobody(store: Store):
    await store.ingest([an_interaction("poison"), an_interaction("i1", user_id="u2")])
    engine = DigestEngine(failing={"title of poison": ValueError("cannot be written")})

    await work_to_the_end(store, engine, num_tries=3, num_users=1)

    (letter,) = await WorkQueue(store, consumer="test").dead_letters()
    assert (letter.user_id, letter.reason) == ("u1", "ValueError: cannot be written")
    assert sum("poison" in prompt for prompt in engine.prompts) == 3
    assert (await the_user(store, "u2")).preference == (await offline(["i1"]))[1]


async def test_a_dead_lettered_user_is_updated_with_the_next_interaction(store: Store):
    await store.ingest([an_interaction("poison")])
    engine = DigestEngine(failing={"title of poison": ValueError("no")})
    await work_to_the_end(store, engine, num_tries=2)
    engine.failing.clear()

    await store.ingest([an_interaction("i2", at=5)])
    await work_to_the_end(store, engine)

    assert (await the_user(store)).preference == (await offline(["poison", "i2"]))[1]


async def test_an_empty_text_is_a_failure_and_no_preference(store: Store):
    class Mute(DigestEngine):
        async def generate(self, messages, limits):
            return ""

    await store.ingest([an_interaction("i1")])

    await work_to_the_end(store, Mute(), num_tries=2)

    (letter,) = await WorkQueue(store, consumer="test").dead_letters()
    assert "empty preference" in letter.reason


@pytest.mark.parametrize("error", [EngineUnavailable, EngineTimeout, EngineOverloaded])
async def test_an_engine_that_does_not_serve_is_waited_for(store: Store, error: type[EngineError]):
    await store.ingest([an_interaction("i1")])
    engine = DigestEngine(failing={"": error("away")})

    async with working(store, engine, num_tries=2, max_deliveries=2):
        await until(lambda: asyncio.sleep(0, len(engine.prompts) > 4))
        engine.failing.clear()
        await until(lambda: nothing_waits(store))

    assert (await the_user(store)).preference == (await offline(["i1"]))[1]
    assert await WorkQueue(store, consumer="test").dead_letters() == []


async def test_the_work_of_a_killed_worker_is_done_by_another(store: Store):
    killed = WorkQueue(store, consumer="killed")
    await killed.create_groups()
    await store.ingest(a_history(some_ids(4)))
    await killed.read("users", count=9, block_seconds=0.01)
    await killed.acquire_lease(USER, "token of the killed", seconds=0.3)

    await work_to_the_end(store, DigestEngine())

    user = await the_user(store)
    assert (user.state, user.preference) == await offline(some_ids(4))


async def test_a_worker_killed_between_save_and_acknowledgement_changes_nothing(store: Store):
    killed = WorkQueue(store, consumer="killed")
    await killed.create_groups()
    await store.ingest(a_history(some_ids(4)))
    await killed.read("users", count=9, block_seconds=0.01)
    saved = await store.save_preference(updated_by_hand(await the_user(store)))
    engine = DigestEngine()

    await work_to_the_end(store, engine)

    assert await the_user(store) == saved
    assert engine.prompts == []


async def test_work_that_was_delivered_too_often_is_put_aside(store: Store):
    killed = WorkQueue(store, consumer="killed")
    await killed.create_groups()
    await store.ingest([an_interaction("i1")])
    await killed.read("users", count=9, block_seconds=0.01)
    for _ in range(3):
        await killed.claim("users", idle_seconds=0, count=9)

    await work_to_the_end(store, DigestEngine(), max_deliveries=4)

    (letter,) = await killed.dead_letters()
    assert "delivered 5 times" in letter.reason


async def test_a_long_update_stays_with_its_worker(store: Store):
    await store.ingest([an_interaction("i1")])
    engine = DigestEngine(gate=asyncio.Event())

    # A lease of 0.2 s expired before it was renewed where the machine stalled.
    async with working(store, engine, claim_after_seconds=60, lease_seconds=1.0):
        await engine.asked.wait()
        for age in (idle_ms, lease_age_ms):  # both are renewed, again and again
            for _ in range(2):
                await until(lambda age=age: grew_younger(store, age))
        engine.gate.set()


async def idle_ms(store: Store) -> int:
    command = ("XPENDING", keys.events(keys.partition_of("u1")), keys.GROUP, "-", "+", 1)
    return int((await store.connection.call(*command))[0][2])


async def lease_age_ms(store: Store) -> int:
    return -int(await store.connection.call("PTTL", keys.lease(USER)))


async def grew_younger(store: Store, age: Callable[[Store], Awaitable[int]]) -> bool:
    before = await age(store)
    await asyncio.sleep(0.01)
    return await age(store) < before


async def test_two_workers_end_like_one(store: Store):
    one, two = DigestEngine(), DigestEngine()
    async with working(store, one), working(store, two):
        for interaction in a_history(some_ids(6)):
            await store.ingest([interaction])
        await until(lambda: nothing_waits(store))

    user = await the_user(store)
    assert (user.state, user.preference) == await offline(some_ids(6))


async def test_an_update_that_lost_to_another_save_is_done_again(store: Store):
    await store.ingest(a_history(some_ids(2)))
    engine = DigestEngine(gate=asyncio.Event())

    async with working(store, engine):
        await engine.asked.wait()
        behind = updated_by_hand(await the_user(store))
        await store.save_preference(behind)
        await store.ingest([an_interaction("i3", at=9)])
        engine.gate.set()
        await until(lambda: nothing_waits(store))

    user = await the_user(store)
    assert (user.state, user.preference) == await offline(some_ids(3))


async def test_a_stopped_worker_finishes_what_it_has_begun_and_leaves_the_rest(store: Store):
    await store.ingest([an_interaction(user_id=user) for user in ("u1", "u2")])
    engine = DigestEngine(gate=asyncio.Event())

    async with working(store, engine, num_users=1) as stop:
        await engine.asked.wait()
        stop.set()
        engine.gate.set()

    assert len(engine.prompts) == 1
    await work_to_the_end(store, DigestEngine())
    assert (await the_user(store, "u1")).preference == (await the_user(store, "u2")).preference


async def test_a_worker_notices_that_redis_was_emptied(store: Store):
    engine = DigestEngine()
    async with working(store, engine):
        await until(lambda: groups_exist(store))
        await store.connection.call("FLUSHALL")
        await put_items(store, ["i1"])
        await store.ingest([an_interaction("i1")])
        await until(lambda: asyncio.sleep(0, len(engine.prompts) == 1))
        await until(lambda: nothing_waits(store))

    assert (await the_user(store)).preference == (await offline(["i1"]))[1]


async def groups_exist(store: Store) -> bool:
    return bool(await store.connection.call("EXISTS", "msr:{i63}:queue"))


async def test_a_worker_survives_a_restart_of_redis_and_a_start_before_it(tmp_path: Path):
    redis = EmbeddedRedis(tmp_path)
    store = await Store.open(redis.start(), timeout_seconds=1)
    await put_items(store, some_ids(2))
    await store.ingest([an_interaction("i1")])
    redis.stop()
    stop = asyncio.Event()
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(Worker(store, DigestEngine(), QUICK).run(stop))
            for at in (1, 2):
                logs.clear()
                await until(lambda: asyncio.sleep(0, "state_unavailable" in events_of(logs)))
                redis.start()
                await until(partial(accepts, store, an_interaction("i2", at=at)))
                await until(lambda: nothing_waits(store))
                redis.stop()
            stop.set()
    redis.start()

    assert (await the_user(store)).preference == (await offline(["i1", "i2", "i2"]))[1]
    await store.close()
    redis.stop()


async def accepts(store: Store, interaction: Interaction) -> bool:
    """Whether it was taken in. On a busy machine a slow PING counts as hanging for a moment."""
    try:
        await store.ingest([interaction])
    except StateUnavailable:
        return False
    return True


def events_of(logs: list) -> list[str]:
    return [entry["event"] for entry in logs]
