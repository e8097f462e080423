"""HTTP requests to one vLLM server, and the error that each kind of failure becomes.

AttemptFailed means that another server or a later attempt may succeed. A prompt that every server
would refuse gets a typed error.
"""

import asyncio
import json
import math
from typing import Any, Literal

import httpx

from services.core.errors import (
    EngineError,
    EngineOverloaded,
    EngineRefused,
    EngineUnavailable,
    InputError,
    ModelUnusable,
)
from services.engines.vllm_client.chat_requests import TOO_LONG_PARAMETERS
from services.engines.vllm_client.http_transport import FreeConnections
from services.telemetry import request_context

CONNECT_SECONDS = 5.0
MAX_RETRY_AFTER_SECONDS = 60.0

# Answers that no prompt can cause: this server is not, or no longer, what was connected to.
_NOT_OURS = (401, 403, 404, 405, 407)
_BUSY = (429, 503)
_CACHE_MISS = "Cache miss for image"


class AttemptFailed(Exception):
    """A failed attempt that another replica, or a later try, may make good.

    gone: the server must pass its checks before it is asked again. left: it was found gone by
    another prompt. broken: it answered with a 500 or garbage. busy: it asks to come again later.
    late: no answer in the time that the prompt has.
    """

    def __init__(
        self,
        kind: Literal["gone", "left", "broken", "busy", "late"],
        error: EngineError,
        *,
        retry_after_seconds: float = 0.0,
    ) -> None:
        """`error` is what the caller gets if nothing makes it good."""
        super().__init__(str(error))
        self.kind = kind
        self.error = error
        self.retry_after_seconds = retry_after_seconds


class PromptTooLong(Exception):
    """The prompt and its answer exceed the model's length; the text says by how much."""


class CacheMiss(Exception):
    """The server does not hold a picture that was left out."""


class ConnectionLost(Exception):
    """The connection ended in the middle of an request_json."""


class ServerHttp:
    """JSON to and from one server; `sent_at` and `received_at` are of the event loop's clock."""

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None) -> None:
        """`transport` replaces the network. Raises InputError for what is no address."""
        base = _parse_url(url)
        self.url = str(base.copy_with(userinfo=b""))  # may be logged: no credentials
        # Deadlines are the caller's, for the whole of a prompt; httpx would count each read anew.
        self._http = httpx.AsyncClient(
            base_url=base,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            transport=transport or FreeConnections(),
        )
        self.sent_at = self.received_at = -math.inf

    async def request_json(self, method: str, path: str, body: bytes | None = None) -> Any:
        """What the server answers.

        Raises AttemptFailed, PromptTooLong, CacheMiss, ConnectionLost or EngineRefused.
        """
        response = await self._request(method, path, body)
        if response.is_success:
            try:
                return response.json()
            except ValueError as error:
                raise AttemptFailed("broken", invalid_response(self.url, error)) from error
        raise self._failure(path, response)

    async def post_command(self, path: str, body: bytes) -> tuple[bool, str]:
        """Whether the server did it, and its message. Raises AttemptFailed or ConnectionLost."""
        response = await self._request("POST", path, body)
        return response.is_success, _read_error(response)[0]

    async def is_healthy(self, wait_seconds: float) -> bool:
        """Whether the server says so; also one that computes for long does, one that hangs not."""
        try:
            async with asyncio.timeout(wait_seconds):
                await self._http.get("/health")
        except (TimeoutError, httpx.HTTPError):
            return False
        self.received_at = asyncio.get_running_loop().time()
        return True

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _request(self, method: str, path: str, body: bytes | None) -> httpx.Response:
        now = asyncio.get_running_loop().time
        self.sent_at = now()
        headers = {}
        if body is not None:
            headers = {"content-type": "application/json", **request_context.headers()}
        try:
            response = await self._http.request(method, path, content=body, headers=headers)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError) as error:
            raise ConnectionLost(str(error) or type(error).__name__) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise AttemptFailed("gone", unreachable(self.url, error)) from error
        self.received_at = now()
        return response

    def _failure(self, path: str, response: httpx.Response) -> Exception:
        status = response.status_code
        said, param = _read_error(response)
        detail = f"{self.url}{path} answered {status}: {said[:300]}"
        if status == 400 and param in TOO_LONG_PARAMETERS:
            return PromptTooLong(detail)
        if status == 400 and _CACHE_MISS in said:
            return CacheMiss(detail)
        if status in _NOT_OURS:
            remedy = "no vLLM server with this model answers there; see what was started"
            return AttemptFailed("gone", ModelUnusable(f"{detail}; {remedy}"))
        if status in _BUSY:
            overloaded = EngineOverloaded(f"{detail}; ask less at once, or add a server")
            return AttemptFailed("busy", overloaded, retry_after_seconds=_retry_after(response))
        if response.is_client_error:
            return EngineRefused(detail)
        return AttemptFailed("broken", EngineUnavailable(f"{detail}; see the log of that server"))


def unreachable(url: str, error: Exception) -> EngineUnavailable:
    """Nobody answers at this address."""
    told = str(error) or type(error).__name__
    return EngineUnavailable(f"{url} cannot be reached ({told}); is the vLLM server running?")


def invalid_response(url: str, error: Exception) -> EngineUnavailable:
    """Somebody answers, but not as vLLM does."""
    return EngineUnavailable(
        f"{url} did not answer as a vLLM server does ({error}); see what runs there, and its log"
    )


def _parse_url(url: str) -> httpx.URL:
    try:
        base = httpx.URL(url.rstrip("/").removesuffix("/v1"))
    except httpx.InvalidURL as error:
        raise InputError(f"{url!r} is not a server's address ({error})") from error
    if base.scheme not in ("http", "https") or not base.host:
        raise InputError(f"{url!r} is not a server's address; write http://HOST:PORT")
    return base


def _read_error(response: httpx.Response) -> tuple[str, str | None]:
    """What vLLM says of a failure, and which parameter it blames."""
    try:
        error = json.loads(response.content)["error"]
        return str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError, AttributeError):
        return response.text, None


def _retry_after(response: httpx.Response) -> float:
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:  # absent, or a date
        return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
