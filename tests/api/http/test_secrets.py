"""A key's secret is nowhere but in its owner's request."""

import httpx
import structlog

from services.core.api_keys import Scope
from services.state.user_store import Store
from tests.api.builders import WITH_KEYS, a_token, an_app, bearer, send


class _Crashing(Store):
    async def load_user(self, user_id: object) -> None:  # type: ignore[override]
        raise ZeroDivisionError


def shown(answer: httpx.Response) -> str:
    return answer.text + str(answer.headers)


async def test_a_request_leaves_no_trace_of_its_secret(store: Store) -> None:
    token = await a_token(store, Scope.READ, Scope.ADMIN, rate_per_second=0.01, burst=4)
    _, key_id, secret = token.split("_", 2)
    app = an_app(_Crashing(store.connection), rules=WITH_KEYS)
    with structlog.testing.capture_logs() as logs:
        answers = [
            await send(app, method, path, body, headers=bearer(key))
            for method, path, body, key in (
                ("GET", "/items/i1", None, token),
                ("POST", "/recommend", {"user_id": "u1"}, token),  # crashes
                ("POST", "/interactions", {}, token),  # has not the scope
                ("GET", "/items/i1", None, f"{token}x"),
                ("GET", "/items/i1", None, f"msr_{'0' * 12}_{secret}"),
                ("GET", "/metrics", None, token),
                ("GET", "/items/i1", None, token),
                ("GET", "/items/i1", None, token),  # one too many
            )
        ]
    assert [a.status_code for a in answers] == [200, 500, 403, 401, 401, 200, 200, 429]
    assert key_id in str(logs)
    assert secret not in str(logs) + "".join(map(shown, answers)) + str(app.openapi())
