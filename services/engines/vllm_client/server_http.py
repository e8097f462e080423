"""HTTP requests to one vLLM server, and the error that each kind of failure becomes.

AttemptFailed means that another server or a later attempt may succeed. A prompt that every server
would refuse gets a typed error.
"""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import aiohttp
from yarl import URL

from services.core.backoff import retry_after_seconds
from services.core.errors import (
    AnswerTokenMissing,
    EngineError,
    EngineOverloaded,
    EngineRefused,
    EngineUnavailable,
    InputError,
    ModelUnusable,
)
from services.engines.vllm_client.chat_requests import (
    TOO_LONG_PARAMETERS,
    ChatRequest,
    InvalidResponse,
)
from services.telemetry import request_context

T = TypeVar("T")

CONNECT_SECONDS = 5.0
MAX_RETRY_AFTER_SECONDS = 60.0
# vLLM closes a connection that was idle for 5 seconds. The client must close it first: a request
# that is sent while the server closes its connection is lost.
KEEPALIVE_SECONDS = 4.0
# A server that moved to another address is found again after this time.
DNS_CACHE_SECONDS = 1

# Statuses that no prompt can cause: the server is not, or no longer, the one that was verified.
_WRONG_SERVER = (401, 403, 404, 405, 407)
_BUSY = (429, 503)
_CACHE_MISS = "Cache miss for image"


class AttemptFailed(Exception):
    """A failed attempt that another server, or a later attempt, may make good.

    down: the server must pass its checks before it gets another prompt.
    moved: another prompt found the server down.
    broken: the server answered with a 500 or with something that is no answer.
    busy: the server asks to come back later.
    timeout: no answer in the time that the prompt has.
    """

    def __init__(
        self,
        kind: Literal["down", "moved", "broken", "busy", "timeout"],
        error: EngineError,
        *,
        retry_after_seconds: float = 0.0,
    ) -> None:
        """`error` is what the caller gets if no attempt succeeds."""
        super().__init__(str(error))
        self.kind = kind
        self.error = error
        self.retry_after_seconds = retry_after_seconds


class ConnectionLost(AttemptFailed):
    """The connection ended during a request, or while the server closed it as idle."""

    def __init__(self, url: str, reason: str) -> None:
        """Down, unless a second request succeeds."""
        super().__init__("down", _unreachable(url, reason))
        self.reason = reason


class CacheMiss(AttemptFailed):
    """The server does not hold an image whose data was not sent."""


class PromptTooLong(EngineRefused):
    """The prompt and its answer exceed the model's length; the message says by how much."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the status is one of the 200s."""
        return 200 <= self.status < 300


# Sends a request (method, URL, body, headers). Raises aiohttp.ClientError.
Send = Callable[[str, URL, bytes | None, Mapping[str, str]], Awaitable[HttpResponse]]


def open_session(*, keepalive_seconds: float = KEEPALIVE_SECONDS) -> aiohttp.ClientSession:
    """Keep-alive connections to the servers of an engine; close it after use.

    A request that finds no free connection opens one: the engine bounds the number of requests.
    Deadlines are the caller's and span a whole prompt, so only connecting is bounded here.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0, keepalive_timeout=keepalive_seconds, ttl_dns_cache=DNS_CACHE_SECONDS
        ),
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def sender(session: aiohttp.ClientSession) -> Send:
    """Sends through the session. A request that is cancelled closes its connection."""

    async def send(
        method: str, url: URL, body: bytes | None, headers: Mapping[str, str]
    ) -> HttpResponse:
        async with session.request(
            method, url, data=body, headers=headers, allow_redirects=False
        ) as response:
            return HttpResponse(response.status, response.headers, await response.read())

    return send


class ServerHttp:
    """JSON to and from one server.

    `sent_at` and `received_at` are times of the event loop: the last request and the last response.
    """

    def __init__(self, url: str, send: Send) -> None:
        """InputError for a `url` that is no server's address."""
        self._base = _parse_url(url)
        self.url = str(self._base.with_user(None))  # may be logged: no credentials
        self._send = send
        self.sent_at = self.received_at = -math.inf

    async def request_json(self, method: str, path: str, body: bytes | None = None) -> Any:
        """The server's JSON answer. Raises AttemptFailed or EngineRefused."""
        response = await self._request(method, path, body)
        if not response.is_success:
            raise self._failure(path, response)
        try:
            return json.loads(response.body)
        except ValueError as error:
            raise AttemptFailed("broken", _invalid_response(self.url, error)) from error

    async def ask(self, request: ChatRequest[T], held: Container[str] = ()) -> T:
        """The answer to a prompt, sent without the images whose ids are in `held`.

        Raises AnswerTokenMissing, and what `request_json` raises.
        """
        answer = await self.request_json("POST", request.path, request.body(held))
        try:
            return request.read(answer)
        except InvalidResponse as error:
            raise AttemptFailed("broken", _invalid_response(self.url, error)) from error
        except AnswerTokenMissing as error:
            raise AnswerTokenMissing(f"{self.url}: {error}") from error

    async def post_command(self, path: str, command: Mapping[str, str]) -> tuple[bool, str]:
        """Whether the server did it, and its message. Raises AttemptFailed."""
        response = await self._request("POST", path, json.dumps(command).encode())
        return response.is_success, _read_error(response)[0]

    async def is_healthy(self, wait_seconds: float) -> bool:
        """Whether the server answers at all. One that computes for long does, a frozen one not."""
        try:
            async with asyncio.timeout(wait_seconds):
                await self._send("GET", self._base / "health", None, {})
        except (TimeoutError, aiohttp.ClientError):
            return False
        self.received_at = asyncio.get_running_loop().time()
        return True

    async def _request(self, method: str, path: str, body: bytes | None) -> HttpResponse:
        now = asyncio.get_running_loop().time
        self.sent_at = now()
        headers = {}
        if body is not None:
            headers = {"content-type": "application/json", **request_context.headers()}
        try:
            response = await self._send(method, self._base.joinpath(path[1:]), body, headers)
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError) as error:
            # aiohttp's own text repeats the address.
            reason = getattr(error, "strerror", None) or _text(error)
            raise AttemptFailed("down", _unreachable(self.url, reason)) from error
        except aiohttp.ClientError as error:
            raise ConnectionLost(self.url, _text(error)) from error
        self.received_at = now()
        return response

    def _failure(self, path: str, response: HttpResponse) -> Exception:
        status = response.status
        message, parameter = _read_error(response)
        detail = f"{self.url}{path} answered {status}: {message[:300]}"
        if status == 400 and parameter in TOO_LONG_PARAMETERS:
            return PromptTooLong(detail)
        if status == 400 and _CACHE_MISS in message:
            return CacheMiss("broken", _invalid_response(self.url, detail))
        if status in _WRONG_SERVER:
            remedy = "no vLLM server with this model answers there; see what was started"
            return AttemptFailed("down", ModelUnusable(f"{detail}; {remedy}"))
        if status in _BUSY:
            overloaded = EngineOverloaded(f"{detail}; ask less at once, or add a server")
            seconds = retry_after_seconds(response.headers.get("retry-after")) or 0.0
            seconds = min(seconds, MAX_RETRY_AFTER_SECONDS)
            return AttemptFailed("busy", overloaded, retry_after_seconds=seconds)
        if 400 <= status < 500:
            return EngineRefused(detail)
        return AttemptFailed("broken", EngineUnavailable(f"{detail}; see the log of that server"))


def _unreachable(url: str, reason: str) -> EngineUnavailable:
    """No server answers at this address."""
    return EngineUnavailable(f"{url} cannot be reached ({reason}); is the vLLM server running?")


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def _invalid_response(url: str, problem: object) -> EngineUnavailable:
    """A server answers, but not as vLLM does."""
    return EngineUnavailable(
        f"{url} did not answer as a vLLM server does ({problem}); see what runs there, and its log"
    )


def _parse_url(url: str) -> URL:
    try:
        base = URL(url.rstrip("/").removesuffix("/v1"))
    except ValueError as error:
        raise InputError(f"{url!r} is not a server's address ({error})") from error
    if base.scheme not in ("http", "https") or not base.host:
        raise InputError(f"{url!r} is not a server's address; write http://HOST:PORT")
    return base


def _read_error(response: HttpResponse) -> tuple[str, str | None]:
    """VLLM's error message, and the parameter that it blames."""
    try:
        error = json.loads(response.body)["error"]
        return str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError, AttributeError):
        return response.body.decode(errors="replace"), None
