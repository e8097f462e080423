"""Hostile addresses given to the fetcher on a made-up network.

DNS is a table passed as an argument. Sockets to the public address lead to a server that redirects
or is busy; sockets to any other address lead to one that must never be reached: both listen on
loopback, and the second counts who comes.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpcore

from benchmarks.attacks.urls import INSIDE, PUBLIC_ADDRESS, HostileUrl, dns_answers
from services.core.errors import ImageRefused, UrlRefused
from services.fetch.download import CheckedClient, fetch_image
from services.fetch.rules import FetchRules

_REDIRECT = "HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_BUSY = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_IMAGE = "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 6\r\n\r\nsecret"


@dataclass(slots=True)
class Reached:
    """What came of one address. `num_inside` counts connections to what must not be reached."""

    num_inside: int = 0
    num_public: int = 0
    refusal: str = ""
    fetched: bytes | None = None


@dataclass(slots=True)
class Network:
    """The two servers and who came to them. `redirects` are the public one's, for one address."""

    public_port: int = 0
    inside_port: int = 0
    redirects: Sequence[str] = ()
    reached: Reached = field(default_factory=Reached)

    async def answer_inside(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """The server that must not be reached gives away what it has."""
        self.reached.num_inside += 1
        await self._say(_IMAGE, reader, writer)

    async def answer_public(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """`/1` leads to the first redirect, `/2` to the second; all else is busy."""
        self.reached.num_public += 1
        line = (await reader.readline()).decode()
        path = line.split()[1].lstrip("/")
        answer = _BUSY
        if path.isdecimal() and int(path) <= len(self.redirects):
            answer = _REDIRECT.format(self.redirects[int(path) - 1])
        await self._say(answer, reader, writer)

    async def _say(
        self, answer: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer.encode())
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # whoever came has left; it is counted
        finally:
            writer.close()


class _Sockets(httpcore.AnyIOBackend):
    def __init__(self, network: Network) -> None:
        self._network = network

    async def connect_tcp(
        self, host: str, port: int, *options: Any, **named: Any
    ) -> httpcore.AsyncNetworkStream:
        network = self._network
        port = network.public_port if host == PUBLIC_ADDRESS else network.inside_port
        return await super().connect_tcp("127.0.0.1", port, *options, **named)


@asynccontextmanager
async def network() -> AsyncIterator[Network]:
    """The two servers, on free ports."""
    made = Network()
    async with (
        await asyncio.start_server(made.answer_public, "127.0.0.1", 0) as public,
        await asyncio.start_server(made.answer_inside, "127.0.0.1", 0) as inside,
    ):
        made.public_port = public.sockets[0].getsockname()[1]
        made.inside_port = inside.sockets[0].getsockname()[1]
        yield made


async def try_url(hostile: HostileUrl, network: Network, *, allow_private: bool = False) -> Reached:
    """Fetch one address by the rules that serve; with `allow_private` to show what they prevent."""

    def fill(text: str) -> str:
        return text.replace("{port}", str(network.inside_port))

    network.reached = Reached()
    network.redirects = [fill(target) for target in hostile.redirects]
    num_looked_up = 0

    async def resolve(host: str, port: int) -> list[str]:
        nonlocal num_looked_up
        num_looked_up += 1
        if hostile.redirects and host == INSIDE:
            return ["127.0.0.1"]
        return list(dns_answers(hostile.answers or ((host,),), num_looked_up - 1))

    rules = FetchRules(tuple(map(fill, hostile.allowed)), max_attempts=2, backoff_seconds=0.0)
    rules = replace(rules, allow_private=allow_private)
    async with CheckedClient(rules, resolve=resolve, sockets=_Sockets(network)) as client:
        try:
            network.reached.fetched = await fetch_image(client, fill(hostile.url), rules)
        except (UrlRefused, ImageRefused) as error:
            network.reached.refusal = str(error)
    return network.reached


async def try_all(urls: Sequence[HostileUrl]) -> dict[str, Reached]:
    """What came of each, by name."""
    async with network() as made:
        return {hostile.name: await try_url(hostile, made) for hostile in urls}
