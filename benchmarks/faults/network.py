"""The network between our programs and Redis: a TCP proxy on loopback that can be cut.

A cut is loud (connections break and new ones are refused) or silent: bytes stop, and once it heals
those under way arrive, although whoever sent them gave up long ago and has sent them again.
"""

import asyncio
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

_CHUNK_BYTES = 2**16


@dataclass(slots=True)
class Trap:
    """Cuts the network, loudly, at the first request that holds `marker`: `before` Redis sees it,
    or `after` Redis did it but before the answer is through.
    """

    marker: bytes
    when: Literal["before", "after"]
    sprung: asyncio.Event = field(default_factory=asyncio.Event)


class Network:
    """A proxy in front of the port of a Redis."""

    def __init__(self, redis_port: int) -> None:
        """Use it as a context; `url` is then what `Store.open` takes."""
        self.url = ""
        self.redis_url = f"redis://127.0.0.1:{redis_port}/0"  # past the network
        self._redis_port = redis_port
        self._trap: Trap | None = None
        self._loud = False
        self._passing = asyncio.Event()
        self._passing.set()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "Network":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self._loud = True
        self._passing.set()
        while self._tasks:  # one may be about to open its connection to Redis
            self._abort_all()
            await asyncio.wait(self._tasks, timeout=0.05)

    def cut(self, *, silently: bool) -> None:
        """Nothing passes until `heal`."""
        self._passing.clear()
        self._loud = not silently
        if self._loud:
            self._abort_all()

    def heal(self) -> None:
        """Everything passes again, what was held back first."""
        self._loud = False
        self._passing.set()

    @property
    def num_open(self) -> int:
        """Connections that carry bytes, or hold some back for which nobody waits anymore."""
        return len(self._open) // 2

    def set_trap(self, marker: bytes, when: Literal["before", "after"]) -> Trap:
        """Cut it at a moment that no kill would hit for certain; see Trap."""
        self._trap = Trap(marker, when)
        return self._trap

    # --- connections -----------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._loud:
            writer.transport.abort()
            return
        await self._passing.wait()
        try:
            from_redis, to_redis = await asyncio.open_connection("127.0.0.1", self._redis_port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, to_redis}
        self._open |= ends
        try:
            await _Link(self).carry(reader, to_redis, from_redis, writer)
        finally:
            self._open -= ends
            for end in ends:
                end.close()

    def _abort_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def passing(self) -> None:
        """Return when bytes may pass."""
        await self._passing.wait()

    def take_trap(self, request: bytes) -> Trap | None:
        """The trap that this request springs; it is set no more then."""
        trap = self._trap
        if trap is None or trap.marker not in request:
            return None
        self._trap = None
        return trap


class _Link:
    """One connection through the network: what a program sends and what Redis answers."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._answers_to: Trap | None = None

    async def carry(
        self,
        reader: asyncio.StreamReader,
        to_redis: asyncio.StreamWriter,
        from_redis: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Carry bytes both ways until either end hangs up."""
        await asyncio.gather(
            self._pump(reader, to_redis, requests=True),
            self._pump(from_redis, writer, requests=False),
        )

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, requests: bool
    ) -> None:
        try:
            while data := await reader.read(_CHUNK_BYTES):
                await self._network.passing()
                if requests and (trap := self._network.take_trap(data)):
                    if trap.when == "before":
                        self._spring(trap)
                        return
                    self._answers_to = trap
                elif not requests and self._answers_to:
                    self._spring(self._answers_to)
                    return
                writer.write(data)
                await writer.drain()
            # Half a farewell: Redis hangs up by itself once it did all it was sent.
            writer.write_eof()
        except OSError:  # this end is gone, so nothing is left to carry to it
            writer.transport.abort()

    def _spring(self, trap: Trap) -> None:
        self._network.cut(silently=False)
        trap.sprung.set()
