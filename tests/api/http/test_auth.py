"""Who may call what: every route declares it, and nobody gets past it."""

from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi import APIRouter
from prometheus_client import CollectorRegistry, generate_latest

from services.api.http.auth import Access, AccessRules
from services.api.monitoring.metrics import Metrics
from services.api.route_guard import GuardedRoute
from services.core.api_keys import ApiKey, Scope, issue
from services.core.errors import Unauthenticated
from services.state.api_keys import ApiKeys
from services.state.embedded_redis.server import EmbeddedRedis
from services.state.user_store import Store
from tests.api.builders import WITH_KEYS, a_client, a_token, an_app, bearer, put_user, send

RECOMMEND = {"user_id": "u1"}
INTERACTION = {"user_id": "u1", "item_id": "i1", "timestamp_ms": 1}
NEEDED = {
    ("POST", "/recommend"): "read",
    ("GET", "/users"): "read",
    ("GET", "/users/{user_id:id}/preference"): "read",
    ("GET", "/users/{user_id:id}/preference/events"): "read",
    ("GET", "/users/{user_id:id}/history"): "read",
    ("GET", "/personas"): "read",
    ("GET", "/items"): "read",
    ("GET", "/items/{item_id:id}/cover"): "read",
    ("GET", "/progress"): "read",
    ("GET", "/items/{item_id:id}"): "read",
    ("POST", "/interactions"): "write",
    ("PUT", "/items"): "admin",
    ("DELETE", "/items/{item_id:id}"): "admin",
    ("DELETE", "/users/{user_id:id}"): "admin",
    ("GET", "/adapters"): "admin",
    ("POST", "/adapters/{name}/activate"): "admin",
    ("POST", "/adapters/rollback"): "admin",
    ("PUT", "/adapters/shadow"): "admin",
    ("DELETE", "/adapters/shadow"): "admin",
    ("PUT", "/adapters/experiment"): "admin",
    ("DELETE", "/adapters/experiment"): "admin",
    ("GET", "/metrics"): "admin",
    ("GET", "/health/live"): None,
    ("GET", "/health/ready"): None,
    ("GET", "/version"): None,
    ("GET", "/"): None,
    ("GET", "/console/{digest}/{name}"): None,
}
REQUESTS: list[tuple[str, str, Any, Scope]] = [
    ("POST", "/recommend", RECOMMEND, Scope.READ),
    ("GET", "/users/u1/preference", None, Scope.READ),
    ("GET", "/users", None, Scope.READ),
    ("GET", "/users/u1/history", None, Scope.READ),
    ("GET", "/personas", None, Scope.READ),
    ("GET", "/items/i1", None, Scope.READ),
    ("GET", "/items", None, Scope.READ),
    ("GET", "/progress", None, Scope.READ),
    ("POST", "/interactions", INTERACTION, Scope.WRITE),
    ("PUT", "/items", {"item_id": "i1", "title": "A fox"}, Scope.ADMIN),
    ("DELETE", "/items/i1", None, Scope.ADMIN),
    ("DELETE", "/users/u1", None, Scope.ADMIN),
    ("GET", "/adapters", None, Scope.ADMIN),
    ("POST", "/adapters/own/activate", None, Scope.ADMIN),
    ("GET", "/metrics", None, Scope.ADMIN),
]


def id_in(token: str) -> str:
    return token.split("_", 2)[1]


# --- what routes declare -------------------------------------------------------------------------


def test_every_route_of_the_application_declares_who_may_call_it(store: Store) -> None:
    routes: list[Any] = an_app(store).routes
    guarded = [route for route in routes if isinstance(route, GuardedRoute)]
    declared = {(method, r.path): r.need.scope for r in guarded for method in r.methods}
    assert declared == NEEDED
    assert {route.path for route in routes if route not in guarded} == {"/openapi.json"}


def test_a_route_that_declares_nothing_cannot_be_defined() -> None:
    async def forgotten() -> None: ...

    with pytest.raises(TypeError, match="/somewhere: say who may call it"):
        APIRouter(route_class=GuardedRoute).get("/somewhere")(forgotten)


# --- what callers get ----------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path", "body", "scope"), REQUESTS)
async def test_a_request_needs_its_own_scope_and_no_other(
    store: Store, method: str, path: str, body: Any, scope: Scope
) -> None:
    await put_user(store, "u1", ["i2"])
    app = an_app(store, rules=WITH_KEYS)
    others = await a_token(store, *(set(Scope) - {scope}))
    without = await send(app, method, path, body)
    wrong = await send(app, method, path, body, headers=bearer(others))
    right = await send(app, method, path, body, headers=bearer(await a_token(store, scope)))
    assert (without.status_code, without.json()["type"]) == (401, "/problems/unauthenticated")
    assert (wrong.status_code, wrong.json()["type"]) == (403, "/problems/forbidden")
    assert f"`{scope}`" in wrong.json()["detail"]
    assert right.is_success, right.text


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/version", "/openapi.json"])
async def test_health_version_and_document_need_no_key(store: Store, path: str) -> None:
    assert (await send(an_app(store, rules=WITH_KEYS), "GET", path)).status_code == 200


async def test_metrics_are_open_where_the_rules_say_so(store: Store) -> None:
    rules = AccessRules(require_keys=True, open_metrics=True)
    app = an_app(store, rules=rules)
    assert (await send(app, "GET", "/metrics")).status_code == 200
    assert "security" not in app.openapi()["paths"]["/metrics"]["get"]
    assert "security" in app.openapi()["paths"]["/recommend"]["post"]


async def test_where_no_key_is_asked_for_one_that_is_sent_is_not_looked_at(store: Store) -> None:
    answer = await send(an_app(store), "GET", "/items/i1", headers=bearer("msr_nonsense"))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Basic dTpw", "Bearer nonsense", "Bearer a b",
     "Bearer msr_0123456789ab_" + "x" * 43, "Bearer msr_0123456789ab_" + "\xe9" * 43],
)  # fmt: skip
async def test_what_is_no_valid_key_is_refused_with_a_challenge(
    store: Store, authorization: str
) -> None:
    headers = [(b"Authorization", authorization.encode("latin-1"))]
    async with a_client(an_app(store, rules=WITH_KEYS)) as client:
        answer = await client.get("/items/i1", headers=headers)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_another_secret_under_a_keys_id_is_refused(store: Store) -> None:
    token, other = await a_token(store), await a_token(store)
    forged = f"msr_{id_in(token)}_{other.split('_', 2)[2]}"
    answer = await send(an_app(store, rules=WITH_KEYS), "GET", "/items/i1", headers=bearer(forged))
    assert answer.status_code == 401


async def test_the_scheme_is_read_in_any_case(store: Store) -> None:
    headers = {"Authorization": f"bEARER  {await a_token(store)}"}
    answer = await send(an_app(store, rules=WITH_KEYS), "GET", "/items/i1", headers=headers)
    assert answer.status_code == 200


async def test_an_expired_key_is_refused_by_name(store: Store) -> None:
    token = await a_token(store, now_ms=1000, expires_ms=2000)
    answer = await send(an_app(store, rules=WITH_KEYS), "GET", "/items/i1", headers=bearer(token))
    assert answer.status_code == 401
    assert "has expired" in answer.json()["detail"]


async def test_without_a_key_not_even_a_broken_body_is_looked_at(store: Store) -> None:
    async with a_client(an_app(store, rules=WITH_KEYS)) as client:
        headers = {"Content-Type": "application/json"}
        answer = await client.post("/interactions", content=b"{", headers=headers)
    assert answer.status_code == 401


async def test_several_keys_are_valid_at_once_and_changed_without_a_restart(store: Store) -> None:
    app, old = an_app(store, rules=WITH_KEYS), await a_token(store)
    assert (await send(app, "GET", "/items/i1", headers=bearer(old))).status_code == 200
    new = await a_token(store)
    both = [await send(app, "GET", "/items/i1", headers=bearer(each)) for each in (old, new)]
    assert [answer.status_code for answer in both] == [200, 200]

    await ApiKeys(store.connection).revoke(id_in(old))
    after = [await send(app, "GET", "/items/i1", headers=bearer(each)) for each in (old, new)]
    assert [answer.status_code for answer in after] == [401, 200]


async def test_a_redis_that_is_away_is_503_whatever_the_key(tmp_path: Path) -> None:
    redis = EmbeddedRedis(tmp_path)
    store = await Store.open(redis.start())
    token = await a_token(store)
    app = an_app(store, rules=WITH_KEYS)
    redis.stop()
    answers = [
        await send(app, "POST", "/recommend", RECOMMEND, headers=bearer(each))
        for each in (token, "msr_0123456789ab_" + "x" * 43)
    ]
    await store.close()
    assert [answer.status_code for answer in answers] == [503, 503]
    assert {answer.json()["type"] for answer in answers} == {"/problems/state-unavailable"}


async def test_refusals_are_counted_by_reason_and_logged_with_the_keys_id(store: Store) -> None:
    app, token = an_app(store, rules=WITH_KEYS), await a_token(store, Scope.WRITE)
    with structlog.testing.capture_logs() as logs:
        await send(app, "GET", "/items/i1")
        await send(app, "GET", "/items/i1", headers=bearer(token))
    metrics = generate_latest(app.state.deps.metrics.registry).decode()
    assert 'msr_access_refusals_total{reason="Unauthenticated"} 1.0' in metrics
    assert 'msr_access_refusals_total{reason="Forbidden"} 1.0' in metrics
    assert [event.get("key_id") for event in logs] == [None, id_in(token)]


# --- what is remembered --------------------------------------------------------------------------


class CountingKeys(ApiKeys):
    """Counts how often it is asked for a key."""

    num_loads = 0

    async def load(self, key_id: str) -> ApiKey | None:
        self.num_loads += 1
        return await super().load(key_id)


class Clock:
    """Stands still until it is set."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


async def test_a_key_is_read_once_in_a_while_and_a_revoked_one_stops_within_it(
    store: Store,
) -> None:
    held, clock = CountingKeys(store.connection), Clock()
    rules = AccessRules(require_keys=True, cache_seconds=3)
    access = Access(held, rules, Metrics(CollectorRegistry()), clock=clock)
    key, token = issue("shop", [Scope.READ], now_ms=1000)
    await held.add(key)
    for _ in range(50):
        assert await access.identify(f"Bearer {token}") == key
    assert held.num_loads == 1

    await held.revoke(key.key_id)
    clock.seconds += 2.9
    assert await access.identify(f"Bearer {token}") == key
    clock.seconds += 0.1
    with pytest.raises(Unauthenticated):
        await access.identify(f"Bearer {token}")


async def test_that_a_key_is_unknown_is_not_remembered(store: Store) -> None:
    held = ApiKeys(store.connection)
    access = Access(
        held, AccessRules(require_keys=True), Metrics(CollectorRegistry()), clock=Clock()
    )
    key, token = issue("shop", [Scope.READ], now_ms=1000)
    with pytest.raises(Unauthenticated):
        await access.identify(f"Bearer {token}")
    await held.add(key)
    assert await access.identify(f"Bearer {token}") == key
