"""What is saved of a user, who may save it, and what forgetting leaves."""

import json
from dataclasses import replace

import pytest

from services.core.errors import StateConflict, UnknownUser
from services.core.records import UserId
from services.core.recurrence import PreferenceState
from services.state.keys import partition_of
from services.state.records import UpdatedPreference
from services.state.user_export import export_user
from services.state.user_store import Store
from services.state.work_queue import WorkQueue, load_backlog
from tests.builders import (
    a_history,
    an_interaction,
    an_updated_user,
    put_items,
    some_ids,
    the_user,
    updated_by_hand,
)


async def test_nobody_knows_an_unknown_user(store: Store):
    assert await store.load_user(UserId("nobody")) is None


async def test_a_saved_preference_is_read_back_as_it_was(store: Store):
    saved = await an_updated_user(store, some_ids(7))

    assert await the_user(store) == saved
    assert (saved.preference, saved.preference_version, saved.version) == ("now", 7, 7)
    assert saved.state.tail == ("i7",)
    assert [block.preference for block in saved.state.blocks] == ["after 1", "after 2"]


async def test_only_the_first_of_two_saves_from_one_record_counts(store: Store):
    await put_items(store, some_ids(4))
    await store.ingest(a_history(some_ids(4)))
    record = await the_user(store)
    await store.save_preference(updated_by_hand(record, "first"))

    with pytest.raises(StateConflict, match="u1"):
        await store.save_preference(updated_by_hand(record, "second"))

    assert (await the_user(store)).preference == "first"


async def test_interactions_that_arrive_during_an_update_are_no_conflict(store: Store):
    await put_items(store, some_ids(4))
    await store.ingest(a_history(some_ids(3)))
    record = await the_user(store)
    await store.ingest([an_interaction("i4", at=9)])

    await store.save_preference(updated_by_hand(record))

    now = await the_user(store)
    assert (now.version, now.preference_version) == (4, 3)


async def test_a_block_that_stands_keeps_the_time_it_was_written(store: Store):
    record = await an_updated_user(store, some_ids(6))
    aged = replace(record, written_ms=(1, 2))
    changed = updated_by_hand(aged)
    last = replace(changed.state.blocks[1], preference="other")
    state = PreferenceState((changed.state.blocks[0], last))

    saved = await store.save_preference(replace(changed, state=state))

    assert [entry.preference for entry in saved.timeline] == ["after 1", "other"]
    assert saved.timeline[0].written_ms == 1
    assert saved.timeline[1].written_ms > 2


async def test_an_update_is_queued_on_request_if_there_is_something_to_update(store: Store):
    await put_items(store, some_ids(3))
    await store.append_history(a_history(some_ids(3)))

    behind = await store.request_update(UserId("u1"))
    await store.save_preference(updated_by_hand(await the_user(store)))

    assert (behind, await store.request_update(UserId("u1"))) == (True, False)
    assert await store.request_update(UserId("nobody")) is False


async def test_a_forgotten_user_leaves_no_key_and_no_entry(store: Store):
    work_queue = WorkQueue(store, consumer="test")
    await work_queue.create_groups()
    before = await store.connection.call("DBSIZE")
    await put_items(store, some_ids(3))
    items = await store.connection.call("DBSIZE") - before
    await an_updated_user(store, some_ids(3))
    await store.scores.save(UserId("u1"), {"k": 1.0})
    await work_queue.acquire_lease(UserId("u1"), "token", seconds=60)
    taken = await work_queue.read("users", count=1, block_seconds=0.01)

    assert await store.forget_user(UserId("u1")) is True

    assert await store.connection.call("DBSIZE") == before + items
    assert await store.connection.call("XLEN", taken[0].stream) == 0
    assert await work_queue.claim("users", idle_seconds=0, count=9) == []


async def test_forgetting_takes_dead_letters_along_and_leaves_those_of_others(store: Store):
    users = [f"u{k}" for k in range(1000) if partition_of(f"u{k}") == partition_of("u1")][:2]
    work_queue = WorkQueue(store, consumer="test")
    await work_queue.create_groups()
    await put_items(store, ["i1"])
    await store.ingest([an_interaction(user_id=user) for user in users])
    for delivery in await work_queue.read("users", count=9, block_seconds=0.01):
        await work_queue.dead_letter([delivery], "reason")

    await store.forget_user(UserId(users[0]))

    assert [letter.user_id for letter in await work_queue.dead_letters()] == [users[1]]


async def test_forgetting_nobody_says_so(store: Store):
    assert await store.forget_user(UserId("nobody")) is False


async def test_an_update_that_ends_after_the_user_was_forgotten_brings_nothing_back(store: Store):
    record = await an_updated_user(store, some_ids(3))
    await store.forget_user(UserId("u1"))

    with pytest.raises(StateConflict):
        await store.save_preference(updated_by_hand(record))

    assert await store.load_user(UserId("u1")) is None


async def test_an_update_of_the_forgotten_user_does_not_fit_the_one_who_came_after(store: Store):
    await put_items(store, some_ids(3))
    await store.ingest(a_history(some_ids(3)))
    of_the_first = await the_user(store)
    await store.forget_user(UserId("u1"))
    await store.ingest([an_interaction("i1")])

    with pytest.raises(StateConflict):
        await store.save_preference(updated_by_hand(of_the_first))

    assert (await the_user(store)).preference == ""


async def test_several_saves_at_once_report_conflicts_in_their_places(store: Store):
    one = await an_updated_user(store, some_ids(3), "u1")
    two = await an_updated_user(store, some_ids(3), "u2")
    stale = replace(two, revision=two.revision - 1)

    saved = await store.save_preferences([updated_by_hand(r) for r in (stale, one)])

    assert saved[0] is None
    assert saved[1] is not None
    assert saved[1].user_id == "u1"


async def test_a_long_text_in_any_script_survives(store: Store):
    record = await an_updated_user(store, some_ids(3))
    text = 'Žluťoučký "kůň" 🐴\n' * 200

    await store.save_preference(UpdatedPreference(record, record.state, text, 3, "hand"))

    assert (await the_user(store)).preference == text


async def test_all_that_is_held_of_a_user_is_exported(store: Store):
    await an_updated_user(store, ["i1", "i2", "i3", "i4"])
    await store.scores.save(UserId("u1"), {"key": 1.5})
    await store.ingest([an_interaction("i1", at=99)])
    held = await export_user(store, UserId("u1"))

    assert [each["item_id"] for each in held["history"]] == ["i1", "i2", "i3", "i4", "i1"]
    assert (held["preference"], held["tail"], held["timeline"][0]["preference"]) == (
        "now", ["i4"], "after 1",
    )  # fmt: skip
    assert (held["cached_margins"], held["waiting_updates"]) == ({"key": 1.5}, 2)
    assert set(json.loads(json.dumps(held))) == set(held)


async def test_a_request_named_like_a_user_is_nothing_held_of_that_user(store: Store):
    neighbor = next(f"n{k}" for k in range(1000) if partition_of(f"n{k}") == partition_of("u1"))
    await an_updated_user(store, ["i1"])
    await store.ingest([an_interaction("i1", user_id=neighbor)], origin="u1")

    assert (await export_user(store, UserId("u1")))["waiting_updates"] == 1


async def test_of_an_unknown_user_nothing_is_exported(store: Store):
    with pytest.raises(UnknownUser, match="nobody"):
        await export_user(store, UserId("nobody"))


async def test_the_backlog_counts_updates_and_tells_how_long_the_oldest_waits(store: Store):
    await put_items(store, ["i1"])
    assert (await load_backlog(store.connection)).num_waiting == 0
    for at, user in enumerate(("u1", "u2", "u2")):
        await store.ingest([an_interaction(user_id=user, at=at)])
    backlog = await load_backlog(store.connection)

    assert (backlog.num_waiting, backlog.num_dead) == (3, 0)
    assert backlog.lag_seconds >= 0
