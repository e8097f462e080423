"""What does the Python client add to a call, over httpx alone?

    msr bench client [--rounds 12] [--calls 250]

Each side sends `POST /recommend` for 20 items to a server in a process of its own that gives one
answer, always the same: what it takes to rank is in no figure. `MsrClient` builds and checks the
request, sends it and gives a typed answer. httpx alone sends the same bytes and parses the JSON.
Both sides call in turn, call by call, the first of a pair now this one and now that; a round is the
difference of the two medians of its calls. The asynchronous client is compared with httpx's alike.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from statistics import median
from typing import Any

import httpx

from benchmarks.support.runner import markdown
from clients.python import AsyncMsrClient, MsrClient
from services.core.wire.recommend import RecommendRequest, RecommendResponse
from services.process.announce import announce, wait_until_listening
from services.process.http_server import QuietServer, listen

BAR_MS = 1.0
NUM_ITEMS = 20
WARM_UP_CALLS = 100
QUICK = ("--rounds", "2", "--calls", "20")
_SIDES = ("client", "httpx")
_HEADERS = {"Content-Type": "application/json"}

Ask = Callable[[], Awaitable[object]]


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Milliseconds that each client adds to a call: the median over the rounds, and the spread."""
    options = _options(arguments)
    figures: dict[str, Any] = {"rounds": options.rounds, "calls": options.calls}
    with _answering() as url:
        async with _open_sides(url) as kinds:
            for kind, sides in kinds.items():
                figures[kind] = await _compare(sides, options.rounds, options.calls)
    return figures


def holds(figures: dict[str, Any]) -> bool:
    """Whether either client adds less than the bar."""
    return all(figures[kind]["added_ms"] < BAR_MS for kind in ("blocking", "asynchronous"))


def table(figures: dict[str, Any]) -> str:
    """One row a client."""
    header = ("client", "httpx alone, ms", "client, ms", "added, ms", "spread", "rounds", "calls",
              "bar", "reached")  # fmt: skip
    names = {"blocking": "MsrClient", "asynchronous": "AsyncMsrClient"}
    return markdown(header, [_row(names[kind], figures[kind], figures) for kind in names])


def _row(name: str, measured: dict[str, Any], figures: dict[str, Any]) -> tuple[object, ...]:
    low, high = measured["spread_ms"]
    return (
        name,
        f"{measured['httpx_ms']:.2f}",
        f"{measured['client_ms']:.2f}",
        f"{measured['added_ms']:.2f}",
        f"{low:.2f} to {high:.2f}",
        figures["rounds"],
        figures["calls"],
        f"< {BAR_MS:g}",
        "yes" if measured["added_ms"] < BAR_MS else "NO",
    )


# --- the sides -----------------------------------------------------------------------------------


@asynccontextmanager
async def _open_sides(url: str) -> AsyncIterator[dict[str, dict[str, Ask]]]:
    # The bytes that the clients send, so that both sides send alike.
    content = RecommendRequest(user_id="u42", k=NUM_ITEMS).model_dump_json(exclude_none=True)
    with MsrClient(url) as client, httpx.Client(base_url=url) as raw:

        async def ask_client() -> object:
            return client.recommend("u42", k=NUM_ITEMS)

        async def ask_raw() -> object:
            # It is to block, as the client on the other side does.
            response = raw.post("/recommend", content=content, headers=_HEADERS)  # noqa: ASYNC212
            return response.raise_for_status().json()

        async with (
            AsyncMsrClient(url) as async_client,
            httpx.AsyncClient(base_url=url) as async_raw,
        ):

            async def ask_async_client() -> object:
                return await async_client.recommend("u42", k=NUM_ITEMS)

            async def ask_async_raw() -> object:
                response = await async_raw.post("/recommend", content=content, headers=_HEADERS)
                return response.raise_for_status().json()

            yield {
                "blocking": {"client": ask_client, "httpx": ask_raw},
                "asynchronous": {"client": ask_async_client, "httpx": ask_async_raw},
            }


async def _compare(sides: dict[str, Ask], num_rounds: int, num_calls: int) -> dict[str, Any]:
    await _time(sides, WARM_UP_CALLS)
    rounds = [await _time(sides, num_calls) for _ in range(num_rounds)]
    added = [each["client"] - each["httpx"] for each in rounds]
    return {
        "added_ms": round(median(added), 3),
        "spread_ms": [round(min(added), 3), round(max(added), 3)],
        "client_ms": round(median(each["client"] for each in rounds), 3),
        "httpx_ms": round(median(each["httpx"] for each in rounds), 3),
    }


async def _time(sides: dict[str, Ask], num_calls: int) -> dict[str, float]:
    """The median milliseconds of a call of each side."""
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(num_calls):
        # Who comes first changes, so that neither always follows the other.
        for side in _SIDES if number % 2 else reversed(_SIDES):
            started = time.perf_counter()
            await sides[side]()
            taken[side].append(1000 * (time.perf_counter() - started))
    return {side: median(times) for side, times in taken.items()}


# --- the server ----------------------------------------------------------------------------------


@contextmanager
def _answering() -> Iterator[str]:
    """The base URL of the server, which is gone after the block."""
    command = [sys.executable, "-m", "benchmarks.service.client"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = wait_until_listening(process.stdout)
        if url is None:
            raise RuntimeError(f"the server ended with {process.wait()} before it listened")
        yield url
    finally:
        process.terminate()
        process.wait()


def _an_answer() -> bytes:
    [example] = RecommendResponse.model_json_schema()["examples"]
    items = [{**example["items"][0], "rank": rank} for rank in range(1, NUM_ITEMS + 1)]
    return json.dumps({**example, "items": items}).encode()


async def _serve() -> None:
    body = _an_answer()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            while (await receive()).get("more_body"):
                pass
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    listener = listen("127.0.0.1", 0, remedy="another machine")
    await QuietServer(answer, listener, on_listening=announce).answer()


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench client")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--calls", type=int, default=250, help="of each side, in a round")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    asyncio.run(_serve())
