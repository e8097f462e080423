"""The score cache of a user."""

from services.core.records import UserId
from services.state import keys
from services.state.user_store import Store
from tests.builders import an_updated_user, some_ids, the_user, updated_by_hand

USER = UserId("u1")


async def test_margins_come_back_exactly(store: Store):
    await an_updated_user(store, some_ids(3))
    margins = {"a": 0.1, "b": -1e-17, "c": 12345.678901234567}

    await store.scores.save(USER, margins)

    assert await store.scores.load(USER, ["a", "b", "c", "d"]) == margins


async def test_a_new_preference_forgets_the_margins_of_the_old_one(store: Store):
    await an_updated_user(store, some_ids(3))
    await store.scores.save(USER, {"a": 1.0})

    await store.save_preference(updated_by_hand(await the_user(store), "changed"))

    assert await store.scores.load(USER, ["a"]) == {}


async def test_nothing_is_remembered_of_a_user_without_history(store: Store):
    await store.scores.save(USER, {"a": 1.0})

    assert await store.connection.call("EXISTS", keys.scores(USER)) == 0


async def test_margins_expire_and_are_bounded(store: Store):
    await an_updated_user(store, some_ids(3))
    await store.scores.save(USER, {"first": 1.0})

    await store.scores.save(USER, {f"k{n}": 0.0 for n in range(keys.SCORES_CAP)})

    lifetime = await store.connection.call("TTL", keys.scores(USER))
    assert 0 < lifetime <= keys.SCORES_TTL_SECONDS
    assert await store.connection.call("HLEN", keys.scores(USER)) == keys.SCORES_CAP
    assert await store.scores.load(USER, ["first"]) == {}


def test_a_score_key_depends_on_text_item_and_adapter_alone():
    key = keys.score_key("taste", "version", "adapter")
    others = [
        ("taste2", "version", "adapter"),
        ("taste", "v2", "adapter"),
        ("taste", "version", ""),
    ]

    assert key == keys.score_key("taste", "version", "adapter")
    assert key not in [keys.score_key(*other) for other in others]
