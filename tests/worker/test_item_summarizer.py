"""Items that come without a summary get one, or a reason."""

import asyncio

from services.core.errors import EngineRefused, EngineUnavailable
from services.core.prompts import SUMMARY_LIMITS, summary_messages
from services.core.records import ItemId
from services.state.records import ItemRecord
from services.state.user_store import Store
from services.state.work_queue import WorkQueue
from tests.builders import DigestEngine, an_item
from tests.worker.running import nothing_waits, until, work_to_the_end, working


async def the_item(store: Store) -> ItemRecord:
    return (await store.items.load_items([ItemId("i1")]))[ItemId("i1")]


async def test_a_new_item_is_described_by_its_image_and_title(store: Store):
    await store.items.put_item(an_item(image=b"picture"), summary=None)
    engine = DigestEngine()

    await work_to_the_end(store, engine)

    item = await the_item(store)
    assert item.status == "ready"
    assert item.summary
    assert "title of i1" in engine.prompts[0]
    assert "no picture" not in engine.prompts[0]


async def test_an_item_that_fails_once_is_tried_again(store: Store):
    await store.items.put_item(an_item(), summary=None)
    engine = DigestEngine(failing={"i1": EngineRefused("not now")})

    async with working(store, engine):
        await engine.asked.wait()
        engine.failing.clear()
        await until(lambda: nothing_waits(store))

    assert (await the_item(store)).status == "ready"


async def test_an_item_that_always_fails_says_why_after_its_tries(store: Store):
    await store.items.put_item(an_item(), summary=None)
    engine = DigestEngine(failing={"i1": EngineRefused("a picture of nothing")})

    await work_to_the_end(store, engine, num_tries=3)

    item = await the_item(store)
    assert (item.status, item.reason) == ("failed", "EngineRefused: a picture of nothing")
    assert len(engine.prompts) == 3


async def test_an_engine_that_is_away_makes_no_item_fail(store: Store):
    await store.items.put_item(an_item(), summary=None)
    engine = DigestEngine(failing={"i1": EngineUnavailable("away")})

    async with working(store, engine, num_tries=1):
        await until(lambda: enough(engine))
        engine.failing.clear()
        await until(lambda: nothing_waits(store))

    assert (await the_item(store)).status == "ready"


async def enough(engine: DigestEngine) -> bool:
    return len(engine.prompts) >= 3


async def test_an_item_that_changes_meanwhile_gets_the_summary_of_what_it_is_now(store: Store):
    await store.items.put_item(an_item(title="old title"), summary=None)
    engine = DigestEngine(gate=asyncio.Event())
    async with working(store, engine):
        await engine.asked.wait()
        await store.items.put_item(an_item(title="new title"), summary=None)
        engine.gate.set()
        await until(lambda: nothing_waits(store))

    messages = summary_messages(an_item(title="new title"))
    expected = await DigestEngine().generate(messages, SUMMARY_LIMITS)
    assert (await the_item(store)).summary == expected


async def test_an_item_deleted_meanwhile_stays_deleted(store: Store):
    await store.items.put_item(an_item(), summary=None)
    await store.items.delete_item(ItemId("i1"))

    await work_to_the_end(store, DigestEngine())

    assert await store.items.load_items([ItemId("i1")]) == {}


async def test_an_item_whose_workers_vanish_again_and_again_is_marked_failed(store: Store):
    killed = WorkQueue(store, consumer="killed")
    await killed.create_groups()
    await store.items.put_item(an_item(), summary=None)
    await killed.read("items", count=1, block_seconds=0.01)
    await killed.claim("items", idle_seconds=0, count=1)

    await work_to_the_end(store, DigestEngine(), max_deliveries=2)

    assert "delivered 3 times" in str((await the_item(store)).reason)
