"""How programs are told to end: by SIGINT or SIGTERM, once to end well, twice to end now."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator

_TOLD_BY = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def set_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """The first signal sets the event; a second one ends the process the hard way.

    Only the main thread can be told of signals: in another one nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def leave() -> None:
        for each in _TOLD_BY:
            loop.remove_signal_handler(each)

    def end() -> None:
        stop.set()
        leave()

    for each in _TOLD_BY:
        loop.add_signal_handler(each, end)
    try:
        yield
    finally:
        leave()
