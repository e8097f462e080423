"""Serves an ASGI application on a socket: the API, and a worker's metrics. Keeps ports for others.

The programs run on uvloop, and uvicorn parses with httptools, both from the extra `serve`.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import uvicorn
import uvloop

from services.core.errors import InputError

T = TypeVar("T")


def run_program(main: Coroutine[Any, Any, T]) -> T:
    """Run a server program to its end, on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


class QuietServer(uvicorn.Server):
    """Answers on one socket, leaves signals to its caller, and logs no requests."""

    def __init__(
        self,
        app: Callable[..., Any],
        listener: socket.socket,
        *,
        on_listening: Callable[[str], None],
        shutdown_seconds: float = 1.0,
    ) -> None:
        """`on_listening` gets the base URL as soon as requests are answered."""
        self._listener = listener
        self._on_listening = on_listening
        config = uvicorn.Config(
            app,
            http="httptools",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(shutdown_seconds)),
        )
        super().__init__(config)

    @property
    def url(self) -> str:
        """The address at which it listens."""
        host, port = self._listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def answer(self) -> None:
        """Answer requests until `should_exit` is set and the running ones have ended."""
        with self._listener:  # uvicorn closes it only if it came to answer
            await self.serve(sockets=[self._listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn."""
        await super().startup(sockets=sockets)
        if self.started:
            self._on_listening(self.url)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Called by uvicorn."""
        yield


def listen(host: str, port: int, *, remedy: str) -> socket.socket:
    """A listening socket; port 0 takes a free one. InputError if the port is not available."""
    return _bind(host, port, remedy, listens=True)


@contextlib.contextmanager
def reserved(host: str, port: int, *, remedy: str) -> Iterator[int]:
    """Keep a port for a program that listens on it later; port 0 takes a free one.

    In the block the system gives it to nobody who asks for any free port, and whoever names it can
    listen (on Linux; elsewhere it is only found to be free). InputError if it is not available.
    """
    with _bind(host, port, remedy, listens=False) as held:
        found: int = held.getsockname()[1]
        if sys.platform != "linux":
            held.close()
        yield found


def _bind(host: str, port: int, remedy: str, *, listens: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Name the protocol: asyncio turns Nagle's algorithm off only for IPPROTO_TCP. With Nagle every
    # answer waits for the client's delayed acknowledgement (48 ms instead of 3).
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        if listens:
            bound.listen(2048)
    except OSError as error:
        bound.close()
        raise InputError(
            f"cannot listen on {host} port {port} ({error.strerror or error}); choose another with "
            f"{remedy}"
        ) from error
    return bound
