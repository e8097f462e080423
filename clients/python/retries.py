"""When a request is sent again, and after how long.

A request is sent again if it is repeatable and the connection failed or the server put it off. A
request that timed out is not: the server may still be working on it. The library httpx-retries
makes the tries; this module adds a budget in time and takes `Retry-After` as the least pause.
"""

import asyncio
import random
import time
from dataclasses import dataclass

import httpx
from httpx_retries import Retry

from clients.python.routes import problem_of, retry_after_seconds

_PUT_OFF = (429, 502, 503, 504)
_CONNECTION_FAILED = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how long a client tries. `Retries(max_tries=1)` tries once.

    The pause before a try is random, between half and all of `first_pause_seconds`, which doubles
    with every try up to `longest_pause_seconds`. What the server asks for by Retry-After is added.
    No try begins later than `budget_seconds` after the first.
    """

    max_tries: int = 4
    budget_seconds: float = 20.0
    first_pause_seconds: float = 0.1
    longest_pause_seconds: float = 5.0


class Tries(Retry):
    """The tries of one request, the first of which begins now."""

    def __init__(self, retries: Retries) -> None:
        """All methods may be sent again: the caller gives max_tries=1 where that is wrong."""
        super().__init__(
            total=retries.max_tries - 1,
            allowed_methods=("GET", "POST", "PUT", "DELETE"),
            status_forcelist=_PUT_OFF,
            retry_on_exceptions=_CONNECTION_FAILED,
            # The library doubles it before the first pause.
            backoff_factor=retries.first_pause_seconds / 2,
            max_backoff_wait=retries.longest_pause_seconds,
            backoff_jitter=0.0,
        )
        self._budget_seconds = retries.budget_seconds
        self.begin_again()

    @property
    def num_made(self) -> int:
        """How many tries were begun."""
        return self.attempts_made + 1

    def begin_again(self) -> None:
        """Count from here as if nothing had been tried."""
        self.attempts_made = 0
        self._end = time.monotonic() + self._budget_seconds

    def increment(self) -> "Tries":
        """One object counts the tries of a request, so that the last one is known to its caller."""
        self.attempts_made += 1
        return self

    def pause_seconds(
        self, outcome: httpx.Response | Exception, *, least_seconds: float = 0.0
    ) -> float:
        """How long to wait after this outcome. Raises it if the next try would be past the budget.

        Clients that were refused together get different pauses and do not return together.
        """
        if isinstance(outcome, httpx.Response):
            least_seconds += retry_after_seconds(outcome) or 0.0
        pause = least_seconds + self.backoff_strategy() * random.uniform(0.5, 1.0)
        if time.monotonic() + pause > self._end:
            self.attempts_made -= 1
            raise problem_of(outcome) if isinstance(outcome, httpx.Response) else outcome
        return pause

    def sleep(self, response: httpx.Response | Exception) -> None:
        """Wait before the next try."""
        time.sleep(self.pause_seconds(response))

    async def asleep(self, response: httpx.Response | Exception) -> None:
        """Wait before the next try."""
        await asyncio.sleep(self.pause_seconds(response))
