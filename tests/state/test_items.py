"""Items come with a summary, wait for one, or are known to have none."""

import pytest

from services.core.prompts import HistoryItem
from services.core.records import ItemId
from services.state.records import ItemRecord
from services.state.user_store import Store
from services.state.work_queue import WorkQueue
from tests.builders import an_item, put_items

IMAGE = bytes(range(256))


@pytest.fixture
async def work_queue(store: Store) -> WorkQueue:
    work_queue = WorkQueue(store, consumer="test")
    await work_queue.create_groups()
    return work_queue


async def queued(work_queue: WorkQueue) -> list[str]:
    return [d.subject for d in await work_queue.read("items", count=9, block_seconds=0.01)]


async def the_item(store: Store, item_id: str = "i1") -> ItemRecord:
    return (await store.items.load_items([ItemId(item_id)]))[ItemId(item_id)]


async def test_an_item_with_a_summary_is_ready(store: Store, work_queue: WorkQueue):
    item = an_item(image=IMAGE)

    status = await store.items.put_item(item, summary="A fox.")

    assert (status, await queued(work_queue)) == ("ready", [])
    assert await the_item(store) == ItemRecord(item, item.version, "A fox.", "ready")


async def test_an_item_without_a_summary_waits_for_a_worker(store: Store, work_queue: WorkQueue):
    status = await store.items.put_item(an_item(), summary=None)

    assert (status, await queued(work_queue)) == ("pending", ["i1"])
    assert (await the_item(store)).summary is None


async def test_the_same_item_again_keeps_its_summary_and_is_not_queued_twice(
    store: Store, work_queue: WorkQueue
):
    await store.items.put_item(an_item("i1"), summary="A fox.")
    await store.items.put_item(an_item("i2"), summary=None)

    statuses = [await store.items.put_item(an_item(i), summary=None) for i in ("i1", "i2")]

    assert (statuses, await queued(work_queue)) == (["ready", "pending"], ["i2"])
    assert (await the_item(store, "i1")).summary == "A fox."


async def test_a_changed_item_waits_for_a_new_summary(store: Store, work_queue: WorkQueue):
    await store.items.put_item(an_item(image=IMAGE), summary="A fox.")

    status = await store.items.put_item(an_item(), summary=None)

    assert (status, await queued(work_queue)) == ("pending", ["i1"])
    assert await the_item(store) == ItemRecord(an_item(), an_item().version, None, "pending")


async def test_a_summary_of_an_older_version_comes_too_late(store: Store):
    await store.items.put_item(an_item(title="new"), summary=None)

    late = await store.items.save_summary(ItemId("i1"), an_item(title="old").version, "old text")
    in_time = await store.items.save_summary(ItemId("i1"), an_item(title="new").version, "new text")

    assert (late, in_time) == (False, True)
    assert (await the_item(store)).summary == "new text"


async def test_a_failed_item_says_why_and_is_tried_again_when_put_again(
    store: Store, work_queue: WorkQueue
):
    await store.items.put_item(an_item(), summary=None)
    await store.items.fail_item(ItemId("i1"), an_item().version, "refused")
    failed = await the_item(store)

    status = await store.items.put_item(an_item(), summary=None)

    assert (failed.status, failed.reason, failed.summary) == ("failed", "refused", None)
    assert (status, await queued(work_queue)) == ("pending", ["i1", "i1"])


async def test_a_history_names_ready_and_failed_items_but_not_pending_ones(store: Store):
    await put_items(store, ["ready"])
    await store.items.put_items(
        [ItemRecord(an_item("failed"), an_item("failed").version, None, "failed", "why")]
    )
    await store.items.put_item(an_item("pending"), summary=None)

    ids = [ItemId(i) for i in ("ready", "failed", "pending", "unknown")]
    assert await store.items.load_history_items(ids) == {
        "ready": HistoryItem("title of ready", "summary of ready"),
        "failed": HistoryItem("title of failed", ""),
    }


async def test_a_deleted_item_is_gone_and_its_summary_finds_no_place(store: Store):
    await store.items.put_item(an_item(), summary=None)

    assert await store.items.delete_item(ItemId("i1")) is True

    assert await store.items.delete_item(ItemId("i1")) is False
    assert await store.items.save_summary(ItemId("i1"), an_item().version, "late") is False
    assert await store.items.item_ids_known([ItemId("i1")]) == set()


async def test_images_are_left_out_on_request(store: Store):
    await store.items.put_item(an_item(image=IMAGE), summary="A fox.")

    light = await store.items.load_items([ItemId("i1")], images=False)

    assert light[ItemId("i1")].item == an_item(image=None)
    assert light[ItemId("i1")].version == an_item(image=IMAGE).version


async def test_an_item_of_an_earlier_version_gets_its_cover_and_keeps_it(store: Store):
    item = an_item("i1", image=b"image")
    await store.items.put_item(item, summary="a fox")
    assert await store.items.cover_size(item.item_id) == 0

    await store.items.put_item(item, summary=None, cover=b"cover")  # unchanged: a cover is added
    assert await store.items.load_cover(item.item_id, item.version) == b"cover"

    await store.items.put_item(item, summary="a fox")  # and nobody takes it away
    assert await store.items.load_cover(item.item_id, item.version) == b"cover"
    assert await store.items.load_cover(item.item_id, "another version") is None
