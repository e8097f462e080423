import json
from collections.abc import AsyncIterator

import pytest
import structlog

from services.core.errors import BacklogFull, StateError
from services.state.user_store import Store
from tests.api.builders import ScriptedEngine, a_client, an_app, send

RECOMMEND = {"user_id": "u1"}


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nowhere", 404, "not-found"),
        ("GET", "/recommend", 405, "method-not-allowed"),
        ("GET", "/items/nowhere", 404, "unknown-item"),
        ("GET", "/users/nobody/preference", 404, "unknown-user"),
        ("GET", "/items/" + "x" * 257, 422, "invalid-request"),
        ("GET", "/items/a%00b", 422, "invalid-request"),
        ("GET", "/items/%FF", 422, "invalid-request"),
        ("GET", "/items/", 404, "not-found"),
    ],
)
async def test_every_error_is_a_problem_document(
    store: Store, method: str, path: str, status: int, kind: str
) -> None:
    response = await send(an_app(store), method, path)
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, problem["status"]) == (status, status)
    assert problem["type"] == f"/problems/{kind}"
    assert problem["instance"] == path
    assert problem["request_id"] == response.headers["X-Request-Id"]


async def test_a_method_that_is_not_served_is_answered_with_all_that_are(store: Store) -> None:
    response = await send(an_app(store), "OPTIONS", "/items/i1")
    assert (response.status_code, response.headers["Allow"]) == (405, "DELETE, GET")


@pytest.mark.parametrize(
    ("content", "content_type", "status", "kind"),
    [
        (b'{"user_id": "u1"', "application/json", 400, "malformed-body"),
        (b'{"user_id": "\xff"}', "application/json", 400, "malformed-body"),
        (b'{"user_id": ' + b"[" * 100_000, "application/json", 400, "malformed-body"),
        (b'{"k": 1' + b"0" * 5000 + b"}", "application/json", 400, "malformed-body"),
        (b"user_id=u1", "application/x-www-form-urlencoded", 415, "unsupported-media-type"),
        (b'{"user_id": "u1"}', "text/plain", 415, "unsupported-media-type"),
        (b"", "application/json", 422, "invalid-request"),
        (b"null", "application/json", 422, "invalid-request"),
        (b'{"user_id": "\\ud800"}', "application/json", 422, "invalid-request"),
        (b'{"user_id": "u1", "timeout_seconds": NaN}', "application/json", 422, "invalid-request"),
    ],
)
async def test_a_body_that_cannot_be_used_is_refused(
    store: Store, content: bytes, content_type: str, status: int, kind: str
) -> None:
    headers = {"Content-Type": content_type}
    async with a_client(an_app(store)) as client:
        response = await client.post("/recommend", content=content, headers=headers)
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{kind}")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"k": 0}, "body.k"),
        ({"k": 101}, "body.k"),
        ({"k": "5"}, "body.k"),
        ({"mode": "magic"}, "body.mode"),
        ({"candidates": []}, "body.candidates"),
        ({"candidates": ["x"] * 1001}, "body.candidates"),
        ({"candidates": ["i1", ""]}, "body.candidates.1"),
        ({"timeout_seconds": 0.001}, "body.timeout_seconds"),
        ({"user": "u1"}, "body.user"),
    ],
)
async def test_an_invalid_recommendation_request_names_its_fields(
    store: Store, change: dict[str, object], field: str
) -> None:
    response = await send(an_app(store), "POST", "/recommend", {**RECOMMEND, **change})
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_refused_announced_or_not(
    store: Store, announced: bool
) -> None:
    body = json.dumps({"user_id": "u" * 2000}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    async with a_client(an_app(store, max_body_bytes=1000)) as client:
        response = await client.post(
            "/recommend",
            content=body if announced else pieces(),
            headers={"Content-Type": "application/json"},
        )
    assert (response.status_code, response.json()["type"]) == (413, "/problems/body-too-large")
    assert ("has 2015 bytes" in response.json()["detail"]) == announced


class _Crashing(Store):
    async def load_user(self, user_id: object) -> None:  # type: ignore[override]
        raise ZeroDivisionError("secret internals")


class _Refusing(Store):
    def __init__(self, store: Store, error: StateError) -> None:
        super().__init__(store.connection)
        self.error = error

    async def ingest(self, *_: object, **__: object) -> None:  # type: ignore[override]
        raise self.error


async def test_a_crash_is_a_problem_without_internals_and_is_logged(store: Store) -> None:
    with structlog.testing.capture_logs() as logs:
        response = await send(an_app(_Crashing(store.connection)), "POST", "/recommend", RECOMMEND)
    assert (response.status_code, response.json()["type"]) == (500, "/problems/unexpected")
    assert "secret" not in response.text
    assert "ZeroDivision" not in response.text
    assert "request_crashed" in [event["event"] for event in logs]


async def test_a_full_backlog_asks_to_come_back_later(store: Store) -> None:
    app = an_app(_Refusing(store, BacklogFull("9,000 interactions wait")))
    body = {"user_id": "u1", "item_id": "i1"}
    response = await send(app, "POST", "/interactions", body)
    assert (response.status_code, response.json()["type"]) == (429, "/problems/backlog-full")
    assert int(response.headers["Retry-After"]) > 0


async def test_a_request_keeps_a_harmless_id_of_its_caller_and_no_other(store: Store) -> None:
    app = an_app(store)
    kept = await send(app, "GET", "/version", headers={"X-Request-Id": "trace-42"})
    replaced = await send(app, "GET", "/version", headers={"X-Request-Id": "a b\x1b[31m"})
    assert kept.headers["X-Request-Id"] == "trace-42"
    assert replaced.headers["X-Request-Id"].isalnum()


async def test_the_log_tells_routes_and_no_ids_texts_or_bodies(store: Store) -> None:
    app = an_app(store, ScriptedEngine())
    with structlog.testing.capture_logs() as logs:
        await send(app, "POST", "/recommend", {"user_id": "private-user"})
        await send(app, "GET", "/users/private-user/preference")
    answered = [event for event in logs if event["event"] == "request_answered"]
    assert [event["route"] for event in answered] == ["/recommend", "/users/{user_id}/preference"]
    assert "private-user" not in str(logs)
