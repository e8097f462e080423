"""Requests that arrive when they arrive, whatever became of those before: an open loop.

    python -m benchmarks.faults.load URL USER_PREFIX RATE DEADLINE_SECONDS OUT

A process of its own, so that neither the one that stops servers nor the servers' logs delay it. It
asks for USER_PREFIX-0, -1, ... until SIGTERM, at random moments (a Poisson process of RATE requests
a second), and then writes one JSON line a request to OUT. A latency counts from just before the
request is sent until its last byte is read, a new connection included; how late after its due
moment a request was sent is kept beside it, and shows whether the generator kept up.
"""

import asyncio
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from subprocess import Popen
from urllib.parse import urlsplit

from benchmarks.faults.supervised_process import ROOT

# The server hangs up after 5 idle seconds: a connection that old is not used again.
IDLE_SECONDS = 2.0
# Longer than any deadline: such an answer counts as never given.
GIVE_UP_SECONDS = 15.0
PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Answer:
    """One request. Times are of the machine's monotonic clock; status 0: no answer came."""

    due_at: float
    sent_at: float
    ended_at: float
    status: int
    reason: str = ""
    num_scored_now: int = 0

    @property
    def seconds(self) -> float:
        """The latency."""
        return self.ended_at - self.sent_at

    @property
    def is_full(self) -> bool:
        """Whether the model scored all it was to, and did so now: no answer of the cache alone."""
        return self.status == 200 and not self.reason and self.num_scored_now > 0


class Load:
    """The generator as a process; `end` gives what it saw."""

    def __init__(self, url: str, users: str, out: Path, *, rate: float, deadline: float) -> None:
        """Begin at once. `deadline` is that of each request, in seconds."""
        self._out = out
        command = [sys.executable, "-m", "benchmarks.faults.load"]
        arguments = [url, users, str(rate), str(deadline), str(out)]
        self._process = Popen([*command, *arguments], cwd=ROOT)

    async def end(self) -> list[Answer]:
        """Send no more, and wait for the last answers; in the order they were due."""
        self._process.send_signal(signal.SIGTERM)
        status = await asyncio.to_thread(self._process.wait)
        if status:
            raise RuntimeError(f"the load generator ended with status {status}")
        lines = self._out.read_text().splitlines()
        return [Answer(**json.loads(line)) for line in lines]

    def kill(self) -> None:
        """Whatever happened, leave no process behind."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@contextmanager
def load_on(url: str, users: str, out: Path, *, rate: float, deadline: float) -> Iterator[Load]:
    """A load that is gone after the block."""
    load = Load(url, users, out, rate=rate, deadline=deadline)
    try:
        yield load
    finally:
        load.kill()


# --- the process ---------------------------------------------------------------------------------


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_Connection = tuple[float, _Streams]  # with when it was used last


class _Client:
    """HTTP as plain as it can be: what a library computes would count as the server's latency."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._free: list[_Connection] = []

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        reader, writer = self._take() or await asyncio.open_connection(self._host, self._port)
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        try:
            writer.write(head.encode() + body)
            answer_head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            status = int(answer_head.split(" ", 2)[1])
            length = answer_head.partition("content-length:")[2].split("\r\n", 1)[0]
            content = await reader.readexactly(int(length))
        except BaseException:
            writer.close()
            raise
        self._free.append((time.monotonic(), (reader, writer)))
        return status, content

    def _take(self) -> "_Streams | None":
        """The connection that was used last, if that is not too long ago: then none is."""
        if self._free and self._free[-1][0] > time.monotonic() - IDLE_SECONDS:
            return self._free.pop()[1]
        for _, (_, writer) in self._free:
            writer.close()
        self._free.clear()
        return None


async def _ask(client: _Client, body: bytes, due_at: float) -> Answer:
    sent_at = time.monotonic()
    try:
        async with asyncio.timeout(GIVE_UP_SECONDS):
            status, content = await client.post("/recommend", body)
    except (OSError, EOFError, TimeoutError) as error:
        return Answer(due_at, sent_at, time.monotonic(), 0, type(error).__name__)
    ended_at = time.monotonic()
    if status != 200:
        return Answer(due_at, sent_at, ended_at, status, PROBLEM)
    answer = json.loads(content)
    num_scored_now = answer["num_scored"] - answer["num_cached"]
    return Answer(due_at, sent_at, ended_at, status, answer["reason"] or "", num_scored_now)


async def _generate(url: str, users: str, rate: float, deadline: float) -> list[Answer]:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    client, draw, asked = _Client(url), Random(users), []
    due_at = time.monotonic()
    number = 0
    while not stop.is_set():
        due_at += draw.expovariate(rate)
        try:
            await asyncio.wait_for(stop.wait(), max(0.0, due_at - time.monotonic()))
            break
        except TimeoutError:
            body = {"user_id": f"{users}-{number}", "k": 5, "timeout_seconds": deadline}
            asked.append(asyncio.create_task(_ask(client, json.dumps(body).encode(), due_at)))
            number += 1
    return await asyncio.gather(*asked)


def main(arguments: Sequence[str]) -> None:
    """See the top of this file."""
    url, users, rate, deadline, out = arguments
    answers = asyncio.run(_generate(url, users, float(rate), float(deadline)))
    Path(out).write_text("".join(json.dumps(asdict(answer)) + "\n" for answer in answers))


if __name__ == "__main__":
    main(sys.argv[1:])
