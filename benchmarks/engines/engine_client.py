"""How much CPU time does a request of the vLLM client cost, on aiohttp and on its old transport?

    msr bench engine-client [--rounds 5] [--requests 3000]

POSTs of a scoring prompt without its image, IN_FLIGHT at once, to a server in another process that
answers as vLLM does. Only the transport is measured: no prompt is rendered and no answer is read.
Both transports work in this process on the same event loop, in alternating rounds; the CPU time is
that of this process alone.
"""

import argparse
import asyncio
import json
import multiprocessing
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import httpx
from yarl import URL

from benchmarks.support.runner import markdown
from services.core.prompts import scoring_messages
from services.core.records import Item, ItemId
from services.core.scoring import AnswerTokens
from services.engines.vllm_client.chat_requests import COMPLETIONS, score_request
from services.engines.vllm_client.server_http import open_session, sender

QUICK = ("--rounds", "3", "--requests", "500")

IN_FLIGHT = 100
BAR = 4.0
ANSWERS = AnswerTokens(yes=5592, no=1770)
HEADERS = {"content-type": "application/json"}

Post = Callable[[], Awaitable[object]]


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """CPU milliseconds per request of both transports, and their ratio, old over new."""
    options = _options(arguments)
    milliseconds: dict[str, list[float]] = {"httpx": [], "aiohttp": []}
    with _serving() as url:
        async with (
            httpx.AsyncClient(transport=FreeConnections()) as http,
            open_session() as session,
        ):
            body, send, address = _body(), sender(session), URL(url)
            posts: dict[str, Post] = {
                "httpx": lambda: http.post(url, content=body, headers=HEADERS),
                "aiohttp": lambda: send("POST", address, body, HEADERS),
            }
            for post in posts.values():  # open the connections
                await _cpu_milliseconds(post, IN_FLIGHT)
            for _ in range(options.rounds):
                for name, post in posts.items():
                    milliseconds[name].append(await _cpu_milliseconds(post, options.requests))
    ratios = [old / new for old, new in zip(*milliseconds.values(), strict=True)]
    return {
        "cpu_ratio": round(median(ratios), 2),
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
        "httpx_ms": round(median(milliseconds["httpx"]), 4),
        "aiohttp_ms": round(median(milliseconds["aiohttp"]), 4),
        "requests": options.requests,
        "in_flight": IN_FLIGHT,
        "rounds": options.rounds,
        "bar": BAR,
    }


def table(figures: dict[str, Any]) -> str:
    """One row."""
    low, high = figures["spread"]
    header = ("requests", "in flight", "httpx, CPU ms", "aiohttp, CPU ms", "ratio", "spread")
    row = (
        f"{figures['requests']:,}",
        figures["in_flight"],
        f"{figures['httpx_ms']:.3f}",
        f"{figures['aiohttp_ms']:.3f}",
        f"{figures['cpu_ratio']:.2f}",
        f"{low:.2f} to {high:.2f}",
        figures["rounds"],
        f"{figures['bar']:g}",
        "yes" if holds(figures) else "NO",
    )
    return markdown((*header, "rounds", "bar", "reached"), [row])


def holds(figures: dict[str, Any]) -> bool:
    """Whether a request costs so much less CPU time than before."""
    return bool(figures["cpu_ratio"] >= figures["bar"])


async def _cpu_milliseconds(post: Post, num_requests: int) -> float:
    """CPU time of this process per request."""
    waiting = iter(range(num_requests))

    async def work() -> None:
        for _ in waiting:
            await post()

    started = time.process_time()
    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return 1000 * (time.process_time() - started) / num_requests


def _body() -> bytes:
    """The request for a score of an item whose image the server holds."""
    item = Item(ItemId("item-00001"), "a calm fox at the lake", b"held by the server")
    preference = "Likes pictures in red colors with stripes, of a calm mood; prefers animals."
    request = score_request(
        "recommender", scoring_messages(preference, item), ANSWERS, adds_special_tokens=False
    )
    return request.body(request.image_ids)


# --- a server that answers as vLLM does ----------------------------------------------------------


@contextmanager
def _serving() -> Iterator[str]:
    """The URL of a server in another process."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}{COMPLETIONS}"
    finally:
        process.terminate()
        process.join()


def _serve(pipe: Connection) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def _answer() -> bytes:
    top = [
        {"token": f"token_id:{token}", "logprob": -0.7, "bytes": None}
        for token in (ANSWERS.yes, ANSWERS.no)
    ]
    position = {**top[0], "top_logprobs": top}
    body = json.dumps(
        {
            "id": "chatcmpl-9f2c1d0b7a6e4f3d8c5b2a1908f7e6d5",
            "object": "chat.completion",
            "created": 1767225600,
            "model": "recommender",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Yes", "tool_calls": []},
                    "logprobs": {"content": [position]},
                    "finish_reason": "length",
                }
            ],
            "usage": {
                "prompt_tokens": 1228,
                "total_tokens": 1229,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 1088},
            },
        }
    ).encode()
    head = f"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-length: {len(body)}\r\n"
    return f"{head}content-type: application/json\r\n\r\n".encode() + body


class _Answering(asyncio.Protocol):
    """Answers each request as soon as its body is complete."""

    answer = _answer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) >= length:
            self._received = body[length:]
            self._transport.write(self.answer)


# --- the transport of before ---------------------------------------------------------------------


class FreeConnections(httpx.AsyncBaseTransport):
    """The vLLM client's transport before aiohttp: an httpx connection for each request in flight.

    Kept as the reference. httpx's own pool walks over all its connections at every request and
    costs several times more with 100 in flight.
    """

    def __init__(self, idle_seconds: float = 4.0) -> None:
        self._idle_seconds = idle_seconds
        # With the moment since when each is free; the longest first.
        self._free: deque[tuple[float, httpx.AsyncHTTPTransport]] = deque()
        self._in_use: set[httpx.AsyncHTTPTransport] = set()
        self._tls = httpx.create_ssl_context()
        self._limits = httpx.Limits(
            max_connections=1, max_keepalive_connections=1, keepalive_expiry=idle_seconds
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send on a free connection; a request that fails or is cancelled ends its connection."""
        connection = self._free.pop()[1] if self._free else self._open()
        self._in_use.add(connection)
        try:
            response = await connection.handle_async_request(request)
            content = b"".join([chunk async for chunk in response.aiter_raw()])
        except BaseException:
            await self._discard(connection)
            raise
        self._in_use.remove(connection)
        self._free.append((time.monotonic(), connection))
        await self._close_idle()
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=httpx.ByteStream(content),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        for connection in [*self._in_use, *(connection for _, connection in self._free)]:
            await connection.aclose()

    async def _discard(self, connection: httpx.AsyncHTTPTransport) -> None:
        closing = asyncio.ensure_future(connection.aclose())
        closing.add_done_callback(lambda _: self._in_use.discard(connection))
        await asyncio.shield(closing)

    async def _close_idle(self) -> None:
        while self._free and self._free[0][0] < time.monotonic() - self._idle_seconds:
            await self._free.popleft()[1].aclose()

    def _open(self) -> httpx.AsyncHTTPTransport:
        return httpx.AsyncHTTPTransport(verify=self._tls, limits=self._limits)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench engine-client")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=3000)
    return parser.parse_args(arguments)
