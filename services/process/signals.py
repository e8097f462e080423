"""SIGINT and SIGTERM: the first one ends a program in order, a second one at once."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def set_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """The first signal sets the event; a second one does what the system does by default.

    Does nothing outside of the main thread, because only that thread can handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def leave() -> None:
        for each in _SIGNALS:
            loop.remove_signal_handler(each)

    def end() -> None:
        stop.set()
        leave()

    for each in _SIGNALS:
        loop.add_signal_handler(each, end)
    try:
        yield
    finally:
        leave()
