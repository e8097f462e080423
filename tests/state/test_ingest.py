"""`Store.ingest`: what becomes of interactions, in any order, once or many times."""

import pytest

from services.core.records import MAX_ID_CHARS, Interaction, ItemId, UserId
from services.state import keys
from services.state.user_store import Store
from services.state.work_queue import WorkQueue
from tests.builders import (
    START_MS,
    a_history,
    an_interaction,
    an_updated_user,
    put_items,
    some_ids,
    the_user,
    updated_by_hand,
)


@pytest.fixture(autouse=True)
async def catalogue(store: Store) -> None:
    await put_items(store, some_ids(20))


@pytest.fixture
async def small_store(redis_url: str, store: Store):
    """Histories are capped at six interactions."""
    small = await Store.open(redis_url, history_cap=6)
    yield small
    await small.close()


async def test_a_history_is_ordered_by_time_however_it_arrives(store: Store):
    first, second, third = a_history(["i1", "i2", "i3"])

    await store.ingest([third, first])
    await store.ingest([second])

    assert (await the_user(store)).history == (first, second, third)


async def test_interactions_of_one_moment_are_ordered_by_event_id_as_python_orders_it(store: Store):
    ids = ["b", "a", "B", "é", "aa", "\U0001f600", "\uffee"]

    await store.ingest([an_interaction(event_id=event_id) for event_id in ids])

    events = [interaction.event_id for interaction in (await the_user(store)).history]
    assert events == sorted(ids)


async def test_the_same_event_is_accepted_once(store: Store):
    one = an_interaction("i1")

    outcomes = [*await store.ingest([one, one]), *await store.ingest([one])]

    assert [outcome.outcome for outcome in outcomes] == ["accepted", "duplicate", "duplicate"]
    assert (await the_user(store)).history == (one,)


async def test_an_event_id_counts_even_if_the_rest_of_the_event_differs(store: Store):
    await store.ingest([an_interaction("i1", event_id="e")])

    again = await store.ingest([an_interaction("i2", at=5, event_id="e")])

    assert again[0].outcome == "duplicate"
    assert (await the_user(store)).item_ids == ("i1",)


async def test_two_users_may_use_the_same_event_id(store: Store):
    both = [an_interaction(user_id=user, event_id="e") for user in ("u1", "u2")]

    outcomes = await store.ingest(both)

    assert [outcome.outcome for outcome in outcomes] == ["accepted", "accepted"]


async def test_an_unknown_item_is_rejected_and_the_others_go_on(store: Store):
    outcomes = await store.ingest([an_interaction("nowhere"), an_interaction("i2")])

    assert [outcome.outcome for outcome in outcomes] == ["rejected", "accepted"]
    assert "unknown item" in str(outcomes[0].reason)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (Interaction(UserId(""), ItemId("i1"), START_MS, "e"), "user id has 0"),
        (Interaction(UserId("u"), ItemId("i1"), START_MS, ""), "event id has 0"),
        (Interaction(UserId("u"), ItemId("i" * (MAX_ID_CHARS + 1)), START_MS, "e"), "item id has"),
        (Interaction(UserId("\ud800"), ItemId("i1"), START_MS, "e"), "not valid Unicode"),
        (Interaction(UserId("u"), ItemId("i1"), -1, "e"), "timestamp"),
        (Interaction(UserId("u"), ItemId("i1"), 2**60, "e"), "timestamp"),
    ],
)
async def test_a_broken_interaction_is_rejected_with_its_reason(
    store: Store, broken: Interaction, reason: str
):
    outcomes = await store.ingest([broken, an_interaction("i1")])

    assert reason in str(outcomes[0].reason)
    assert outcomes[1].outcome == "accepted"


async def test_the_version_counts_accepted_interactions(store: Store):
    first, second, third = a_history(["i1", "i2", "i3"])

    versions = [
        (await store.ingest(batch))[-1].version for batch in ([first, second], [first], [third])
    ]

    assert versions == [2, 2, 3]


async def test_one_call_queues_one_update_a_user_and_none_for_duplicates(store: Store):
    work_queue = WorkQueue(store, consumer="test")
    await work_queue.create_groups()
    batch = a_history(["i1", "i2"]) + a_history(["i3"], user_id="u2")

    await store.ingest(batch)
    await store.ingest(batch)

    queued = await work_queue.read("users", count=10, block_seconds=0.01)
    assert sorted((delivery.subject, delivery.version) for delivery in queued) == [
        ("u1", "2"),
        ("u2", "1"),
    ]


async def test_a_thousand_users_fit_one_call(store: Store):
    batch = [an_interaction("i1", user_id=f"u{k}") for k in range(1000)]

    outcomes = await store.ingest(batch)

    assert {outcome.outcome for outcome in outcomes} == {"accepted"}
    assert len(await store.load_users(UserId(f"u{k}") for k in range(1000))) == 1000


async def test_ids_may_hold_what_keys_and_entries_use_themselves(store: Store):
    await put_items(store, ["i:{p01}:1"])

    await store.ingest([an_interaction("i:{p01}:1", user_id="u:{p99} 1", event_id="a:b")])

    assert (await the_user(store, "u:{p99} 1")).item_ids == ("i:{p01}:1",)


async def test_everything_of_a_user_expires_together(store: Store):
    record = await an_updated_user(store, some_ids(4))

    names = [name(record.user_id) for name in (keys.user, keys.history, keys.preference)]
    lifetimes = [await store.connection.call("TTL", name) for name in names]
    assert all(seconds > keys.USER_TTL_SECONDS - 60 for seconds in lifetimes)


async def test_a_user_who_expired_starts_anew(store: Store):
    record = await an_updated_user(store, some_ids(4))
    await store.connection.call("DEL", keys.user(record.user_id))  # the first of its keys to go

    await store.ingest([an_interaction("i9")])

    anew = await the_user(store)
    assert (anew.item_ids, anew.version, anew.state.blocks) == (("i9",), 1, ())


# --- the cap -------------------------------------------------------------------------------------


async def test_a_long_history_loses_whole_blocks_from_its_front(small_store: Store):
    record = await an_updated_user(small_store, some_ids(10))

    assert record == await the_user(small_store)
    assert record.item_ids == tuple(some_ids(10)[6:])
    assert [block.preference for block in record.state.blocks] == ["after 3"]
    assert record.num_dropped_blocks == 2
    assert record.timeline[0].number == 3


async def test_what_was_dropped_cannot_come_back(small_store: Store):
    history = a_history(some_ids(10))
    before = await an_updated_user(small_store, some_ids(10))

    again = await small_store.ingest(history)

    assert [outcome.outcome for outcome in again] == ["rejected"] * 6 + ["duplicate"] * 4
    assert "older than" in str(again[0].reason)
    assert (await the_user(small_store)).version == before.version


async def test_late_interactions_are_refused_up_to_the_end_of_the_first_kept_block(
    small_store: Store,
):
    await an_updated_user(small_store, some_ids(10))  # keeps those at 6, 7, 8 (fixed) and 9
    late = [
        an_interaction("i1", at=7, event_id="within the block"),
        an_interaction("i1", at=8, event_id="event-i9"),  # before event-i9-8, the block's last
        an_interaction("i1", at=8, event_id="event-i9-9"),
    ]

    outcomes = await small_store.ingest(late)

    assert [outcome.outcome for outcome in outcomes] == ["rejected", "rejected", "accepted"]


async def test_blocks_stay_if_an_interaction_arrives_while_they_are_dropped(small_store: Store):
    await small_store.ingest(a_history(some_ids(10)))
    record = await the_user(small_store)
    await small_store.ingest([an_interaction("i11", at=-5)])

    await small_store.save_preference(updated_by_hand(record))

    now = await the_user(small_store)
    assert (len(now.history), now.num_dropped_blocks) == (11, 0)
    assert now.preference_version < now.version


async def test_a_user_with_twice_the_cap_waiting_is_refused_for_a_while(small_store: Store):
    outcomes = await small_store.ingest(a_history(some_ids(14)))

    assert [outcome.outcome for outcome in outcomes] == ["accepted"] * 12 + ["rejected"] * 2
    assert "later" in str(outcomes[-1].reason)
