"""SIGINT and SIGTERM: the first one sets the event, for a second one the system's default holds."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
import uvloop

from services.process.signals import set_by_signals


@pytest.fixture
def as_before() -> Iterator[None]:
    """Whoever runs the tests may have had a signal ignored, as a shell does for `command &`."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize(
    ("number", "by_default"),
    [(signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)],
)
def test_the_first_signal_sets_the_event_and_the_second_would_end_the_process(
    number: signal.Signals, by_default: object, new_loop: Callable[[], asyncio.AbstractEventLoop]
):
    async def handler_after() -> object:
        stop = asyncio.Event()
        with set_by_signals(stop):
            os.kill(os.getpid(), number)
            await stop.wait()
            return signal.getsignal(number)

    # No Runner, which has a handler for SIGINT of its own.
    loop = new_loop()
    try:
        assert loop.run_until_complete(handler_after()) == by_default
    finally:
        loop.close()


def test_outside_the_main_thread_nothing_is_changed():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    async def look() -> None:
        with set_by_signals(asyncio.Event()):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=asyncio.run, args=(look(),))
    thread.start()
    thread.join()

    assert seen == [before]
