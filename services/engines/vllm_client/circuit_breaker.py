"""The circuit breaker of one server: it opens when the server no longer answers prompts.

    closed      prompts go to the server
    open        no prompt goes to it; it is down and probed (`server_pool.py`)
    half-open   it passed its checks again; the next prompt decides: an answer closes the breaker,
                an abandoned prompt opens it

A prompt is abandoned when its caller runs out of time. One abandoned prompt proves little: its
deadline may be short, and a slow server answers other prompts meanwhile. So a prompt counts only if
it waited for MIN_WAIT_SECONDS or more and the server answered nothing in all that time. Of prompts
that waited at the same time one counts.
"""

import math

from services.engines.contract import BreakerState

MAX_ABANDONED = 3
MIN_WAIT_SECONDS = 0.25


class CircuitBreaker:
    """Of one server; begins open. All times are of the event loop's clock."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.state: BreakerState = "open"
        # How often it came back and was left out before it had answered anything.
        self.num_failed_returns = 0
        self._was_closed = False
        self._answered_at = -math.inf
        self._num_abandoned = 0
        self._last_abandoned_at = -math.inf

    def record_answer(self, now: float) -> None:
        """The server answered a prompt."""
        self._answered_at = now
        self._num_abandoned = self.num_failed_returns = 0
        if self.state == "half-open":
            self._close()

    def record_abandoned(self, sent_at: float, now: float) -> bool:
        """A prompt was given up; whether the server is to be left out for it."""
        answered_meanwhile = self._answered_at >= sent_at
        counted_already = self._last_abandoned_at >= sent_at
        if answered_meanwhile or counted_already or now - sent_at < MIN_WAIT_SECONDS:
            return False
        self._last_abandoned_at = now
        self._num_abandoned += 1
        return self.state == "half-open" or self._num_abandoned >= MAX_ABANDONED

    def open(self) -> None:
        """It is left out."""
        self.num_failed_returns += self.state == "half-open"
        self.state = "open"
        self._num_abandoned = 0

    def admit(self) -> None:
        """It passed its checks."""
        if self._was_closed:
            self.state = "half-open"
        else:  # the first time nothing speaks against it
            self._close()

    def _close(self) -> None:
        self.state = "closed"
        self._was_closed = True
