"""When a request is sent again, and after how long.

Sent again is what failed on its way and what the server put off (429, 503), if it is repeatable.
A server that is only slow is not asked again: it is still at work on the first request.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import random

import httpx

PUT_OFF = (429, 503)
_ON_THE_WAY = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how long a client tries. `Retries(max_tries=1)` tries once.

    The pause before a try is at random between half and all of `first_pause_seconds`, doubled with
    every try up to `longest_pause_seconds`; what the server says by Retry-After comes on top. No
    try begins later than `budget_seconds` after the first.
    """

    max_tries: int = 4
    budget_seconds: float = 20.0
    first_pause_seconds: float = 0.1
    longest_pause_seconds: float = 5.0


class Tries:
    """The tries of one request, the first of which begins now."""

    def __init__(
        self,
        retries: Retries,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random,
    ) -> None:
        """`clock` in seconds; `draw` gives numbers in [0, 1)."""
        self.num_made = 1
        self._retries = retries
        self._clock = clock
        self._draw = draw
        self._began = clock()

    def pause_before_next(self, asked_seconds: float = 0.0) -> float | None:
        """Seconds to wait before the next try, `asked_seconds` at least; None if there is none."""
        if self.num_made >= self._retries.max_tries:
            return None
        whole = min(
            self._retries.first_pause_seconds * 2.0 ** (self.num_made - 1),
            self._retries.longest_pause_seconds,
        )
        # Whoever was refused together should not come back together.
        pause = asked_seconds + whole * (1 + self._draw()) / 2
        if self._clock() + pause > self._began + self._retries.budget_seconds:
            return None
        self.num_made += 1
        return pause


def failed_on_the_way(error: httpx.TransportError) -> bool:
    """Whether another try may fare better: the connection failed, not the request or the server."""
    return isinstance(error, _ON_THE_WAY)


def retry_after_seconds(response: httpx.Response) -> float | None:
    """What the header Retry-After asks for, as seconds or a date; None without a sensible one."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
