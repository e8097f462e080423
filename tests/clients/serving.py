"""Servers in a thread, for clients that block."""

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from services.process.http_server import QuietServer, listen

PATIENCE_SECONDS = 120

# Opens what it serves, and serves it until the event is set.
Run = Callable[[Callable[[str], None], asyncio.Event], Awaitable[None]]


@contextmanager
def served(run: Run) -> Iterator[str]:
    """The base URL of what runs on an event loop of its own; ended after the block."""
    listening: queue.Queue[str] = queue.Queue()
    controls: queue.Queue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def run_until_stopped() -> None:
        stop = asyncio.Event()
        controls.put((asyncio.get_running_loop(), stop))
        await run(listening.put, stop)

    thread = threading.Thread(target=lambda: asyncio.run(run_until_stopped()))
    thread.start()
    loop, stop = controls.get(timeout=PATIENCE_SECONDS)
    try:
        yield listening.get(timeout=PATIENCE_SECONDS)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=PATIENCE_SECONDS)


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request is answered: the pieces of a body, which is then ended, cut or held open."""

    pieces: Sequence[bytes] = ()
    then: str = "cut"
    status: int = 200
    media_type: str = "text/event-stream"


class ScriptedServer:
    """An ASGI application that gives its replies in turn, and notes what was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.replies: list[Reply] = []
        self.ids_shown: list[str | None] = []

    def play(self, *replies: Reply) -> str:
        """Begin anew with these replies; the base URL."""
        self.replies, self.ids_shown = list(replies), []
        return self.url

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        shown = dict(scope["headers"]).get(b"last-event-id")
        self.ids_shown.append(shown.decode() if shown is not None else None)
        reply = self.replies.pop(0)
        content_type = (b"content-type", reply.media_type.encode())
        await send(
            {"type": "http.response.start", "status": reply.status, "headers": [content_type]}
        )
        for piece in reply.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if reply.then == "hold":
            while (await receive())["type"] != "http.disconnect":
                pass
        elif reply.then == "end":
            await send({"type": "http.response.body", "body": b""})
        # Else the server sees an answer that is not complete, and hangs up.


@contextmanager
def scripted() -> Iterator[ScriptedServer]:
    """A server that is told what to reply."""
    script = ScriptedServer()

    async def run(on_listening: Callable[[str], None], stop: asyncio.Event) -> None:
        listener = listen("127.0.0.1", 0, remedy="another machine")
        server = QuietServer(script, listener, on_listening=on_listening)
        serving = asyncio.create_task(server.answer())
        await stop.wait()
        server.should_exit = True
        await serving

    with served(run) as script.url:
        yield script
