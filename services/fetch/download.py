"""Fetches one cover by URL, with limits, and never from an address that the rules exclude.

    async with CheckedClient(rules) as client:
        data = await fetch_image(client, "https://m.media-amazon.com/images/I/1.jpg", rules)

The rules on addresses are applied where sockets are opened: a name is resolved once, every address
is checked, and the connection goes to a checked address, so a second look-up cannot give another
one (DNS rebinding). TLS still verifies the host's name. Redirects are followed here and checked
like the first URL. Only failures that may pass are retried: 429, 5xx, and a connection that failed
or took too long.
"""

import asyncio
import math
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import httpcore
import httpx

from services.core.backoff import growing_pause, jittered, retry_after_seconds
from services.core.errors import ImageRefused, UrlRefused
from services.fetch.rules import FetchRules, check_address, check_url, name_url

USER_AGENT = "msr-image-fetch/0.1 (catalogue preparation)"
MAX_RETRY_AFTER_SECONDS = 30.0

# (host, port) -> IP addresses, in the order in which they should be tried
Resolve = Callable[[str, int], Awaitable[list[str]]]
Sleep = Callable[[float], Awaitable[None]]


class HostUnreachable(ImageRefused):
    """Every attempt to fetch the cover failed; a later run may succeed."""


async def resolve_host(host: str, port: int) -> list[str]:
    """The addresses of a host as the system resolves them."""
    loop = asyncio.get_running_loop()
    answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Opens sockets to checked addresses only."""

    def __init__(
        self, allow_private: bool, resolve: Resolve, sockets: httpcore.AsyncNetworkBackend
    ) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._sockets = sockets

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's signature)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"host {host} cannot be resolved ({error})") from error
        if not self._allow_private:
            for address in addresses:
                check_address(address, host=host)
        failure = httpcore.ConnectError(f"host {host} has no address")
        for address in addresses:
            try:
                return await self._sockets.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except httpcore.ConnectError as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        await self._sockets.sleep(seconds)


class CheckedClient(httpx.AsyncClient):
    """An HTTP client that cannot reach an address which the rules exclude.

    `resolve` replaces the system's resolver, `tls` the trusted certificate authorities, `sockets`
    what connects to a checked address.
    """

    def __init__(
        self,
        rules: FetchRules,
        *,
        resolve: Resolve = resolve_host,
        tls: ssl.SSLContext | None = None,
        sockets: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        """Opens no connection yet. Use with `async with`, or close with `aclose`."""
        tls = tls or httpx.create_ssl_context()
        transport = httpx.AsyncHTTPTransport(verify=tls)
        # httpx has no argument for a network backend, httpcore has one. The test that a loopback
        # address is refused fails without this assignment.
        transport._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=30.0,
            network_backend=_CheckedBackend(
                rules.allow_private, resolve, sockets or httpcore.AnyIOBackend()
            ),
        )
        super().__init__(
            transport=transport,
            follow_redirects=False,
            timeout=None,  # fetch_image bounds each attempt as a whole
            headers={
                "User-Agent": USER_AGENT,
                "Accept": "image/*",
                "Accept-Encoding": "identity",
            },
        )
        self._max_per_host = rules.max_per_host
        self._slots: dict[str, asyncio.Semaphore] = {}

    def slot(self, host: str) -> asyncio.Semaphore:
        """Limits the requests in flight to one host; hold it during a request."""
        return self._slots.setdefault(host, asyncio.Semaphore(self._max_per_host))


async def fetch_image(
    client: CheckedClient, url: str, rules: FetchRules, *, sleep: Sleep = asyncio.sleep
) -> bytes:
    """The bytes of a cover, not yet decoded (`images.prepare_image` does that).

    Raises UrlRefused for an address that the rules exclude, ImageRefused for a response that is no
    image within the limits, HostUnreachable (an ImageRefused) if all attempts failed.
    """
    checked = check_url(url, rules)
    wait_seconds, fault = 0.0, ""
    for attempt in range(rules.max_attempts):
        await sleep(wait_seconds)
        try:
            async with client.slot(checked.host), asyncio.timeout(rules.timeout_seconds):
                return await _follow(client, checked, rules)
        except TimeoutError:
            fault, asked_seconds = f"no answer within {rules.timeout_seconds:g} s", 0.0
        except httpx.TransportError as error:
            fault, asked_seconds = f"{type(error).__name__}: {str(error)[:150]}", 0.0
        except _TryLater as error:
            fault, asked_seconds = f"HTTP {error.status}", error.retry_after_seconds
        pause = growing_pause(
            attempt + 1, first_seconds=rules.backoff_seconds, longest_seconds=math.inf
        )
        wait_seconds = max(jittered(pause), asked_seconds)
    raise HostUnreachable(
        f"{name_url(checked)} could not be fetched in {rules.max_attempts} attempts ({fault}); "
        "try again later"
    )


class _TryLater(Exception):
    def __init__(self, status: int, retry_after_seconds: float) -> None:
        super().__init__(status)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


async def _follow(client: CheckedClient, url: httpx.URL, rules: FetchRules) -> bytes:
    for _ in range(rules.max_redirects + 1):
        async with client.stream("GET", url) as response:
            if not response.has_redirect_location:
                return await _read(response, rules)
            try:
                target = url.join(response.headers["Location"])
            except httpx.InvalidURL as error:
                raise UrlRefused(f"{name_url(url)} redirects to what is not a URL") from error
        url = check_url(target, rules)
    raise UrlRefused(f"{name_url(url)} comes after more than {rules.max_redirects} redirects")


async def _read(response: httpx.Response, rules: FetchRules) -> bytes:
    name = name_url(response.url)
    if response.status_code == 429 or response.status_code >= 500:
        asked_seconds = retry_after_seconds(response.headers.get("Retry-After")) or 0.0
        raise _TryLater(response.status_code, min(asked_seconds, MAX_RETRY_AFTER_SECONDS))
    if response.status_code != 200:
        raise ImageRefused(f"{name} answered HTTP {response.status_code}; correct the address")
    content_type = response.headers.get("Content-Type", "")
    if not content_type.lower().startswith("image/"):
        raise ImageRefused(f"{name} is {content_type[:60] or 'of no type'!r}, not an image")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ImageRefused(f"{name} is compressed, which was not requested")
    announced = response.headers.get("Content-Length", "")
    if announced.isdigit() and int(announced) > rules.max_bytes:
        raise ImageRefused(f"{name} has {announced} bytes, more than {rules.max_bytes:,}")
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > rules.max_bytes:
            raise ImageRefused(f"{name} has more than {rules.max_bytes:,} bytes")
    return bytes(data)
