"""Lets a path contain any id, slashes included, percent-encoded as one segment.

The framework routes on the decoded path, where `/users/a%2Fpreference` and `/users/a/preference`
are the same. This middleware makes it route on the encoded path; a path parameter `{name:id}` is
decoded after its route was found.
"""

from urllib.parse import quote, unquote, unquote_to_bytes

from starlette.convertors import Convertor, register_url_convertor
from starlette.types import ASGIApp, Receive, Scope, Send


class _IdConvertor(Convertor[str]):
    regex = "[^/]+"

    def convert(self, value: str) -> str:
        # Bytes that are not UTF-8 become lone surrogates, which the parameter's pattern refuses.
        return unquote(value, errors="surrogateescape")

    def to_string(self, value: str) -> str:
        return quote(value, safe="")


register_url_convertor("id", _IdConvertor())


class EncodedPaths:
    """ASGI middleware: routes see the path percent-encoded, each segment in its one encoding."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Encode the path of one request again."""
        if scope["type"] == "http":
            raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
            segments = raw.split(b"?", 1)[0].split(b"/")
            path = "/".join(quote(unquote_to_bytes(segment), safe="") for segment in segments)
            scope["path"] = path  # in place: the request log reads the route from this scope
        await self._app(scope, receive, send)
