import time

import pytest

from services.core.records import UserId
from services.state.user_store import Store
from tests.api.builders import an_app, send


def an_interaction(**changes: object) -> dict[str, object]:
    return {"user_id": "u1", "item_id": "i1", "timestamp_ms": 1000, **changes}


async def test_one_interaction_is_stored_and_gives_the_version_of_its_user(store: Store) -> None:
    response = await send(an_app(store), "POST", "/interactions", an_interaction())
    assert response.status_code == 202
    assert response.json() == {
        "accepted": 1, "duplicates": 0, "rejected": [], "versions": {"u1": 1},
    }  # fmt: skip
    user = await store.load_user(UserId("u1"))
    assert user is not None
    assert user.item_ids == ("i1",)


async def test_each_interaction_of_a_batch_has_its_own_fate(store: Store) -> None:
    batch = [
        an_interaction(),
        an_interaction(user_id="u2", item_id="nowhere"),
        an_interaction(),
        an_interaction(user_id="u3", timestamp_ms=-1),
        an_interaction(user_id="u3", item_id="i2"),
    ]
    answer = (await send(an_app(store), "POST", "/interactions", {"interactions": batch})).json()
    assert (answer["accepted"], answer["duplicates"]) == (2, 1)
    assert answer["versions"] == {"u1": 1, "u3": 1}
    assert [(each["index"], each["item_id"]) for each in answer["rejected"]] == [
        (1, "nowhere"), (3, "i1"),
    ]  # fmt: skip
    assert "unknown item" in answer["rejected"][0]["reason"]
    assert "negative" in answer["rejected"][1]["reason"]


async def test_a_retry_is_recognized_by_its_facts_or_its_event_id(store: Store) -> None:
    app = an_app(store)
    await send(app, "POST", "/interactions", an_interaction())
    await send(app, "POST", "/interactions", an_interaction(item_id="i2", event_id="e1"))
    again = await send(app, "POST", "/interactions", an_interaction())
    other_item = an_interaction(item_id="i3", event_id="e1")
    same_event = await send(app, "POST", "/interactions", other_item)
    assert (again.json()["duplicates"], same_event.json()["duplicates"]) == (1, 1)
    assert again.json()["versions"] == {"u1": 2}


async def test_without_a_timestamp_the_server_gives_its_own(store: Store) -> None:
    before_ms = time.time_ns() // 1_000_000
    body = {"user_id": "u1", "item_id": "i1"}
    await send(an_app(store), "POST", "/interactions", body)
    user = await store.load_user(UserId("u1"))
    assert user is not None
    assert before_ms <= user.history[0].timestamp_ms <= time.time_ns() // 1_000_000


async def test_interactions_without_timestamps_keep_the_order_of_the_list(store: Store) -> None:
    taken = ["i3", "i1", "i4", "i2"]
    batch = [{"user_id": "u1", "item_id": item_id} for item_id in taken]
    await send(an_app(store), "POST", "/interactions", {"interactions": batch})
    user = await store.load_user(UserId("u1"))
    assert user is not None
    assert list(user.item_ids) == taken


async def test_a_clock_that_runs_ahead_by_more_than_a_day_is_refused(store: Store) -> None:
    now_ms, day_ms = time.time_ns() // 1_000_000, 24 * 3600 * 1000
    ahead = an_interaction(timestamp_ms=now_ms + day_ms + 60_000)
    within = an_interaction(timestamp_ms=now_ms + day_ms - 60_000)
    body = {"interactions": [ahead, within]}
    answer = (await send(an_app(store), "POST", "/interactions", body)).json()
    assert answer["accepted"] == 1
    assert "future" in answer["rejected"][0]["reason"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"interactions": []}, "body.interactions"),
        ({"interactions": [an_interaction()] * 1001}, "body.interactions"),
        ({"interactions": [an_interaction(user_id="")]}, "body.interactions.0.user_id"),
        (an_interaction(item_id="a\x00b"), "body.item_id"),
        (an_interaction(user_id="u" * 257), "body.user_id"),
        (an_interaction(timestamp_ms="soon"), "body.timestamp_ms"),
        (an_interaction(timestamp_ms=2**60), "body.timestamp_ms"),
        (an_interaction(weight=1), "body.weight"),
        ({"user_id": "u1"}, "body.item_id"),
    ],
)
async def test_a_request_that_does_not_fit_the_schema_is_refused_by_field(
    store: Store, body: object, field: str
) -> None:
    response = await send(an_app(store), "POST", "/interactions", body)
    assert response.status_code == 422
    assert [each["field"] for each in response.json()["errors"]] == [field]
    assert await store.load_user(UserId("u1")) is None
