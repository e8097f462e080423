"""Work is handed out at least once: read, kept, claimed, settled."""

import pytest

from services.core.records import ItemId, UserId
from services.state.user_store import Store
from services.state.work_queue import Delivery, GroupMissing, WorkQueue
from tests.builders import an_interaction, an_item, put_items

USER = UserId("u1")


@pytest.fixture
async def first(store: Store) -> WorkQueue:
    work_queue = WorkQueue(store, consumer="first")
    await work_queue.create_groups()
    await put_items(store, ["i1", "i2"])
    return work_queue


@pytest.fixture
def second(store: Store, first: WorkQueue) -> WorkQueue:
    return WorkQueue(store, consumer="second")


async def take(work_queue: WorkQueue) -> list[Delivery]:
    return await work_queue.read("users", count=9, block_seconds=0.01)


async def claim(work_queue: WorkQueue, *, idle_seconds: float = 0.0) -> list[Delivery]:
    return await work_queue.claim("users", idle_seconds=idle_seconds, count=9)


async def test_each_entry_goes_to_one_consumer(store: Store, first: WorkQueue, second: WorkQueue):
    await store.ingest([an_interaction()])

    assert [delivery.subject for delivery in await take(first)] == ["u1"]
    assert await take(second) == []


async def test_what_was_queued_before_the_groups_were_made_is_read(store: Store):
    await put_items(store, ["i1"])
    await store.ingest([an_interaction()])
    work_queue = WorkQueue(store, consumer="late")

    await work_queue.create_groups()
    await work_queue.create_groups()

    assert len(await take(work_queue)) == 1


async def test_abandoned_work_is_claimed_and_its_deliveries_are_counted(
    store: Store, first: WorkQueue, second: WorkQueue
):
    await store.ingest([an_interaction()])
    taken = await take(first)

    claimed = [await claim(second), await claim(first)]

    assert [deliveries[0].entry_id for deliveries in claimed] == [taken[0].entry_id] * 2
    assert [deliveries[0].num_deliveries for deliveries in claimed] == [2, 3]


async def test_work_that_is_kept_is_not_abandoned(
    store: Store, first: WorkQueue, second: WorkQueue
):
    await store.ingest([an_interaction()])
    taken = await take(first)
    stream, entry = taken[0].stream, taken[0].entry_id
    aged = ("XCLAIM", stream, "workers", "first", 0, entry, "IDLE", 60_000, "JUSTID")
    await store.connection.call(*aged)

    await first.keep(taken)

    assert await claim(second, idle_seconds=30) == []
    assert (await claim(second))[0].num_deliveries == 2  # keeping is no delivery


async def test_acknowledged_work_is_gone_for_good(
    store: Store, first: WorkQueue, second: WorkQueue
):
    await store.ingest([an_interaction()])
    taken = await take(first)

    await first.acknowledge(taken)

    assert await claim(second) == []
    assert await store.connection.call("XLEN", taken[0].stream) == 0


async def test_a_dead_letter_says_who_and_why_and_leaves_the_stream(store: Store, first: WorkQueue):
    await store.ingest([an_interaction("i1")])
    await store.ingest([an_interaction("i2")])

    await first.dead_letter(await take(first), "because")

    letters = await first.dead_letters()
    assert [(one.user_id, one.version, one.reason) for one in letters] == [("u1", "2", "because")]
    assert await claim(first) == []


async def test_no_dead_letter_is_written_of_a_user_forgotten_meanwhile(
    store: Store, first: WorkQueue
):
    await store.ingest([an_interaction()])
    taken = await take(first)
    await store.forget_user(USER)

    await first.dead_letter(taken, "because")

    assert await first.dead_letters() == []


async def test_failures_are_counted_in_a_row_and_not_of_the_forgotten(
    store: Store, first: WorkQueue
):
    await store.ingest([an_interaction()])

    counts = [await first.count_user_failure(USER) for _ in range(2)]
    await store.forget_user(USER)

    assert (counts, await first.count_user_failure(USER)) == ([1, 2], 0)
    assert await store.load_user(USER) is None


async def test_waiting_items_have_a_queue_of_their_own(store: Store, first: WorkQueue):
    await store.items.put_item(an_item("i9"), summary=None)

    (delivery,) = await first.read("items", count=9, block_seconds=0.01)

    assert (delivery.subject, delivery.version) == ("i9", an_item("i9").version)
    assert await first.count_item_failure(ItemId("i9")) == 1
    assert await first.count_item_failure(ItemId("nowhere")) == 0


async def test_one_token_at_a_time_has_the_lease(first: WorkQueue, second: WorkQueue):
    assert await first.acquire_lease(USER, "a", seconds=60)
    assert not await second.acquire_lease(USER, "b", seconds=60)

    await second.release_lease(USER, "b")  # not the holder's
    assert not await second.acquire_lease(USER, "b", seconds=60)

    await first.release_lease(USER, "a")
    assert await second.acquire_lease(USER, "b", seconds=60)


async def test_only_the_holder_renews_a_lease(store: Store, first: WorkQueue):
    await first.acquire_lease(USER, "a", seconds=10)

    await first.renew_leases({USER: "b"}, seconds=1000)
    by_another = await store.connection.call("TTL", "msr:{p54}:lease:u1")
    await first.renew_leases({USER: "a"}, seconds=1000)

    assert by_another <= 10
    assert await store.connection.call("TTL", "msr:{p54}:lease:u1") > 990


async def test_a_consumer_that_leaves_with_work_in_hand_loses_none(
    store: Store, first: WorkQueue, second: WorkQueue
):
    await store.ingest([an_interaction()])
    stream = (await take(first))[0].stream

    await first.leave()

    names = [
        group[1] for group in await store.connection.call("XINFO", "CONSUMERS", stream, "workers")
    ]
    assert names == [b"first"]
    assert len(await claim(second)) == 1


async def test_a_consumer_that_leaves_without_work_is_forgotten(store: Store, first: WorkQueue):
    await store.ingest([an_interaction()])
    taken = await take(first)
    await first.acknowledge(taken)

    await first.leave()

    assert await store.connection.call("XINFO", "CONSUMERS", taken[0].stream, "workers") == []


async def test_a_redis_that_was_emptied_is_noticed(store: Store, first: WorkQueue):
    await store.connection.call("FLUSHALL")

    with pytest.raises(GroupMissing):
        await take(first)


async def put_aside(work_queue: WorkQueue, reason: str = "no") -> None:
    for delivery in await take(work_queue):
        await work_queue.dead_letter([delivery], reason)


async def test_a_dead_letter_that_is_retried_is_work_again_and_no_dead_letter(
    store: Store, first: WorkQueue
):
    await store.ingest([an_interaction()])
    await put_aside(first)
    letters = await first.dead_letters()

    assert await first.retry_dead_letters(letters) == 1
    assert await first.retry_dead_letters(letters) == 0  # somebody was here before
    assert [delivery.subject for delivery in await take(first)] == ["u1"]
    assert await first.dead_letters() == []


async def test_of_a_forgotten_user_no_dead_letter_is_retried(store: Store, first: WorkQueue):
    await store.ingest([an_interaction()])
    await put_aside(first)
    letters = await first.dead_letters()
    await store.forget_user(USER)
    await first.retry_dead_letters(letters)

    assert await take(first) == []


async def test_dead_letters_that_are_dropped_leave_the_history(store: Store, first: WorkQueue):
    await store.ingest([an_interaction()])
    await put_aside(first)

    assert await first.drop_dead_letters(await first.dead_letters()) == 1
    assert (await first.dead_letters(), await take(first)) == ([], [])
    assert await store.load_user(USER) is not None


async def test_a_worker_that_leaves_streams_which_are_gone_learns_that_its_groups_are(
    store: Store, first: WorkQueue
):
    await store.connection.call("FLUSHALL")

    with pytest.raises(GroupMissing):
        await first.leave()
