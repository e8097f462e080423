"""The layer around all others: a request's id, log line, metrics and trace, and unexpected errors.

Bodies, queries, headers and ids in paths are not logged: the log contains a route's template and
an API key's id.
"""

import time
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.http import event_streams, problems
from services.api.monitoring.metrics import Metrics
from services.core.api_keys import ApiKey
from services.telemetry import request_context, tracing

log = structlog.get_logger(__name__)


class RequestLog:
    """ASGI middleware; must be outside of every layer that answers or fails."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wrap `app`; count into `metrics`."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; an unexpected exception becomes a problem document."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = request_context.request_id_from(headers.get(request_context.HEADER))
        started = time.perf_counter()
        status = 0
        stream_seconds: float | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status, stream_seconds
            if message["type"] == "http.response.start":
                status = message["status"]
                answered = MutableHeaders(scope=message)
                answered[request_context.HEADER] = request_id
                if answered.get("content-type", "").startswith(event_streams.MEDIA_TYPE):
                    stream_seconds = time.perf_counter() - started
            await send(message)

        with (
            request_context.serving(request_id),
            tracing.span("request", kind="SERVER", parent=headers, request_id=request_id) as span,
        ):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception:
                log.exception("request_crashed", route=_template(scope), method=scope["method"])
                if status:  # a part of the answer is sent; only the server can end the connection
                    raise
                answer = problems.problem_response(problems.UNEXPECTED, scope)
                await answer(scope, receive, send_with_id)
            finally:
                # A stream lasts as long as it is read; count the time until it began.
                self._note(scope, status, stream_seconds or time.perf_counter() - started)
                span.rename(f"{scope['method']} {_template(scope)}")
                span.note(status=status)
                if status >= 500:
                    span.fail(f"status {status}")

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route, method = _template(scope), scope["method"]
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        log.info(
            "request_answered",
            route=route,
            method=method,
            status=status,
            duration_seconds=round(seconds, 4),
            **_key_id(scope),
        )


def _template(scope: Scope) -> str:
    route: Any = scope.get("route")
    return str(getattr(route, "path_format", None) or "unmatched")


def _key_id(scope: Scope) -> dict[str, str]:
    key = scope.get("state", {}).get("api_key")  # set by `route_guard`
    return {"key_id": key.key_id} if isinstance(key, ApiKey) else {}
