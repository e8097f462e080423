"""What the worker makes of a history equals the recurrence over it."""

import asyncio

from services.core.data_folder.text_writers import preference_writer, summary_writer
from services.core.errors import EngineRefused
from services.core.records import ItemId, UserId
from services.state.user_store import Store
from services.worker.limits import WorkerLimits
from services.worker.main import Worker
from tests.builders import (
    DigestEngine,
    a_history,
    an_interaction,
    an_item,
    an_updated_user,
    offline,
    put_items,
    some_ids,
    the_user,
)
from tests.worker.running import QUICK, nothing_waits, until, work_to_the_end, working


async def updated(store: Store, *batches: list, engine: DigestEngine | None = None) -> None:
    for batch in batches:
        await store.ingest(batch)
        await work_to_the_end(store, engine or DigestEngine())


async def test_an_interaction_becomes_a_preference(store: Store):
    await put_items(store, ["i1"])

    await updated(store, [an_interaction("i1")])

    user = await the_user(store)
    assert (user.state, user.preference) == await offline(["i1"])
    assert user.preference_version == user.version == 1


async def test_updating_again_and_again_ends_like_updating_once(store: Store):
    await put_items(store, some_ids(8))
    history = a_history(some_ids(8))

    await updated(store, *([one] for one in history))

    user = await the_user(store)
    assert (user.state, user.preference) == await offline(some_ids(8))


async def test_a_late_interaction_rewrites_its_block_and_those_after_it(store: Store):
    await put_items(store, some_ids(9))
    history = a_history(some_ids(9))
    engine = DigestEngine()
    await updated(store, history[:4] + history[5:], engine=engine)
    num_before = len(engine.prompts)

    await updated(store, [history[4]], engine=engine)

    user = await the_user(store)
    assert (user.state, user.preference) == await offline(some_ids(9))
    assert len(engine.prompts) - num_before == 2  # blocks two and three; block one stands


async def test_a_burst_becomes_one_update(store: Store):
    await put_items(store, some_ids(3))
    for interaction in a_history(some_ids(3)):
        await store.ingest([interaction])
    engine = DigestEngine()

    await work_to_the_end(store, engine)

    assert len(engine.prompts) == 1
    assert (await the_user(store)).preference == (await offline(some_ids(3)))[1]


async def test_what_arrives_during_an_update_is_covered_by_the_next(store: Store):
    await put_items(store, some_ids(2))
    first, second = a_history(some_ids(2))
    engine = DigestEngine(gate=asyncio.Event())
    await store.ingest([first])

    async with working(store, engine):
        await engine.asked.wait()
        await store.ingest([second])
        engine.gate.set()
        await until(lambda: is_current(store))

    assert (await the_user(store)).preference == (await offline(some_ids(2)))[1]


async def is_current(store: Store) -> bool:
    user = await the_user(store)
    return user.preference_version == user.version


async def test_users_are_updated_side_by_side(store: Store):
    await put_items(store, ["i1"])
    await store.ingest([an_interaction(user_id=f"u{k}") for k in range(20)])
    engine = DigestEngine(gate=asyncio.Event())

    async with working(store, engine, num_users=20):
        await until(lambda: asyncio.sleep(0, len(engine.prompts) == 20))
        engine.gate.set()


async def test_no_more_users_than_allowed_are_updated_at_once(store: Store):
    await put_items(store, ["i1"])
    await store.ingest([an_interaction(user_id=f"u{k}") for k in range(20)])
    engine = CountingEngine(3)

    await work_to_the_end(store, engine, num_users=3)

    assert engine.most_at_once == 3


class CountingEngine(DigestEngine):
    """Answers nobody before so many have asked at once."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.at_once = self.most_at_once = 0
        self._wanted = wanted
        self._reached = asyncio.Event()

    async def generate(self, messages, limits):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.at_once == self._wanted:
            self._reached.set()
        await self._reached.wait()
        await asyncio.sleep(0.002)  # room for one too many
        self.at_once -= 1
        return await super().generate(messages, limits)


async def test_a_user_forgotten_during_the_update_stays_forgotten(store: Store):
    await put_items(store, ["i1"])
    await store.ingest([an_interaction("i1")])
    engine = DigestEngine(gate=asyncio.Event())

    async with working(store, engine):
        await engine.asked.wait()
        keys_before_the_user = await forget(store)
        engine.gate.set()

    assert await store.load_user(UserId("u1")) is None
    assert await store.connection.call("DBSIZE") == keys_before_the_user


async def forget(store: Store) -> int:
    await store.forget_user(UserId("u1"))
    return await store.connection.call("DBSIZE")


async def test_texts_of_another_model_are_written_again(store: Store):
    await put_items(store, some_ids(5))
    history = a_history(some_ids(5))
    await updated(store, history[:4], engine=DigestEngine(model="old"))

    await updated(store, history[4:], engine=DigestEngine(model="new"))

    user = await the_user(store)
    assert (user.state, user.preference) == await offline(some_ids(5), model="new")


async def test_a_deleted_item_is_left_out_of_what_is_written_next(store: Store):
    await put_items(store, some_ids(3))
    await store.ingest(a_history(some_ids(3)))
    await store.items.delete_item(ItemId("i2"))
    engine = DigestEngine()

    await work_to_the_end(store, engine)

    assert "title of i1" in engine.prompts[0]
    assert "title of i2" not in engine.prompts[0]


async def test_a_user_of_deleted_items_alone_has_no_preference_and_holds_up_nobody(store: Store):
    await put_items(store, ["i1"])
    await store.ingest([an_interaction("i1")])
    await store.items.delete_item(ItemId("i1"))

    await work_to_the_end(store, DigestEngine())

    assert (await the_user(store)).preference == ""


async def test_an_item_that_waits_for_its_summary_gets_it_before_the_update(store: Store):
    await store.items.put_item(an_item("i1"), summary=None)
    engine = DigestEngine()

    await updated(store, [an_interaction("i1")], engine=engine)

    written = (await store.items.load_items([ItemId("i1")]))[ItemId("i1")].summary
    assert written
    expected = await offline(["i1"], summaries={"i1": written})
    assert (await the_user(store)).preference == expected[1]


async def test_an_item_without_summary_is_described_by_its_title_as_offline(store: Store):
    await store.items.put_item(an_item("i1"), summary=None)
    refusing = DigestEngine(failing={"Describe this item": EngineRefused("not this picture")})

    await updated(store, [an_interaction("i1")], engine=refusing)

    item = (await store.items.load_items([ItemId("i1")]))[ItemId("i1")]
    assert (item.status, item.reason) == ("failed", "EngineRefused: not this picture")
    expected = await offline(["i1"], summaries={"i1": ""})
    assert (await the_user(store)).preference == expected[1]


async def test_a_capped_history_is_updated_as_if_nothing_were_missing(redis_url: str, store: Store):
    small = await Store.open(redis_url, history_cap=6)
    await put_items(small, some_ids(20))
    history = a_history(some_ids(20))
    for start in range(0, 20, 4):
        await updated(small, history[start : start + 4])

    user = await the_user(small)
    state, preference = await offline(some_ids(20))
    assert user.num_dropped_blocks == 5
    assert user.state.blocks == state.blocks[5:]
    assert user.preference == preference
    await small.close()


async def test_a_capped_history_that_is_saved_on_the_way_is_cut_only_at_the_end(
    redis_url: str, store: Store
):
    small = await Store.open(redis_url, history_cap=12)
    await put_items(small, some_ids(20))
    await small.ingest(a_history(some_ids(20)))

    await work_to_the_end(small, DigestEngine(), blocks_between_saves=1)

    user = await the_user(small)
    state, preference = await offline(some_ids(20))
    assert (user.state.blocks, user.num_dropped_blocks) == (state.blocks[3:], 3)
    assert (user.item_ids, user.preference) == (tuple(some_ids(20)[9:]), preference)
    await small.close()


async def test_a_long_update_is_saved_on_the_way_and_taken_up_from_there(store: Store):
    await put_items(store, some_ids(30))
    await store.ingest(a_history(some_ids(30)))
    failing = DigestEngine(failing={"title of i20": EngineRefused("stuck")})
    await work_to_the_end(store, failing, num_tries=1, blocks_between_saves=2)
    assert [
        len((await the_user(store)).state.blocks),
        (await the_user(store)).preference_version,
    ] == [
        6,
        0,
    ]

    engine = DigestEngine()
    await store.request_update(UserId("u1"))
    await work_to_the_end(store, engine)

    assert len(engine.prompts) == 4
    user = await the_user(store)
    assert (user.state, user.preference) == await offline(some_ids(30))


async def test_a_user_who_is_up_to_date_costs_no_prompt(store: Store):
    await an_updated_user(store, some_ids(3))
    engine = DigestEngine()

    await work_to_the_end(store, engine)

    assert engine.prompts == []


def test_pauses_grow_to_their_longest():
    limits = WorkerLimits(first_pause_seconds=1, longest_pause_seconds=5)

    assert [limits.pause_seconds(k) for k in (1, 2, 3, 4, 99)] == [1, 2, 4, 5, 5]


async def test_a_writer_of_its_own_writes_the_preferences_and_no_summaries(store: Store):
    await put_items(store, ["i1"])
    await store.items.put_item(an_item("i2"), summary=None)  # waits for its summary
    engine, writer = DigestEngine(model="summarizer"), DigestEngine(model="writer")
    await store.ingest(a_history(["i1", "i2"]))

    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(Worker(store, engine, QUICK, writer=writer).run(stop))
        await until(lambda: nothing_waits(store))
        stop.set()

    user = await the_user(store)
    assert user.writer == preference_writer("writer", summaries="summarizer").identity
    assert len(engine.prompts) == len(writer.prompts) == 1
    items = await store.items.load_items([ItemId("i2")])
    assert items[ItemId("i2")].writer == summary_writer("summarizer").identity
