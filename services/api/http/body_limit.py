"""Limits the size of a request's body, before all of it is in memory.

The framework has such a limit too, but answers with plain text if Content-Length is too large.
"""

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.http import problems


class BodyLimit:
    """ASGI middleware: at most `max_bytes` a request, or the limit in `by_path` for its path."""

    def __init__(self, app: ASGIApp, max_bytes: int, by_path: Mapping[str, int]) -> None:
        """Wrap `app`."""
        self._app = app
        self._max_bytes = max_bytes
        self._by_path = by_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a Content-Length above the limit at once; count the bytes that arrive."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = self._by_path.get(scope["path"], self._max_bytes)
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > max_bytes:
            answer = problems.problem_response(
                problems.BODY_TOO_LARGE,
                scope,
                detail=f"the body has {announced[:20]} bytes; {max_bytes:,} are accepted here",
            )
            await answer(scope, receive, send)
            return
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > max_bytes:
                raise HTTPException(413, f"the body is longer than {max_bytes:,} bytes")
            return message

        await self._app(scope, receive_counted, send)
