"""While too many updates wait, no more interactions are taken in, and senders get 429."""

from typing import Any

from services.state.user_store import Store
from tests.api.builders import an_app, send


def interactions(*users: str) -> dict[str, Any]:
    return {
        "interactions": [{"user_id": each, "item_id": "i1", "timestamp_ms": 1} for each in users]
    }


async def test_past_the_bound_interactions_are_refused_until_there_is_room(store: Store) -> None:
    app = an_app(store, max_backlog=2)
    await send(app, "POST", "/interactions", interactions("u1", "u2", "u3"))
    await app.state.deps.backlog.look()
    refused = await send(app, "POST", "/interactions", interactions("u4"))
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert refused.json()["type"].endswith("backlog-full")
    assert await store.load_user("u4") is None

    await store.forget_user("u3")  # and its update
    await app.state.deps.backlog.look()
    assert (await send(app, "POST", "/interactions", interactions("u4"))).status_code == 202


async def test_the_backlog_and_its_bound_are_metrics(store: Store) -> None:
    app = an_app(store, max_backlog=7)
    await send(app, "POST", "/interactions", interactions("u1"))
    await app.state.deps.backlog.look()
    metrics = (await send(app, "GET", "/metrics")).text
    assert "msr_backlog_updates 1.0" in metrics
    assert "msr_backlog_bound 7.0" in metrics
    assert "msr_update_lag_seconds" in metrics
    assert "msr_dead_letters 0.0" in metrics
