from collections.abc import Mapping

import pytest

from services.state.user_store import Store
from tests.api.builders import a_client, an_app, send


def are_there(headers: Mapping[str, str]) -> bool:
    return (
        headers["X-Content-Type-Options"] == "nosniff"
        and headers["Referrer-Policy"] == "no-referrer"
        and "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        and headers["Cache-Control"] == "no-store"
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/version"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/users/nobody/preference"),
        ("DELETE", "/users/u1"),
        ("GET", "/nowhere"),
        ("PATCH", "/items"),
    ],
)
async def test_every_answer_and_every_problem_has_them(
    store: Store, method: str, path: str
) -> None:
    assert are_there((await send(an_app(store), method, path)).headers)


class _Crashing(Store):
    async def load_user(self, user_id: object) -> None:  # type: ignore[override]
        raise ZeroDivisionError


async def test_a_crash_and_a_body_refused_unread_have_them(store: Store) -> None:
    app = an_app(_Crashing(store.connection), max_body_bytes=1000)
    crash = await send(app, "POST", "/recommend", {"user_id": "u1"})
    async with a_client(app) as client:
        refused = await client.post("/recommend", content=b"x" * 1001)
    assert (crash.status_code, refused.status_code) == (500, 413)
    assert are_there(crash.headers)
    assert are_there(refused.headers)
