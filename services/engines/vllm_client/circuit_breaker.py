"""When a server that answers nothing is no longer waited for: the circuit breaker of a replica.

    closed      prompts go to it
    open        none does: it is left out and probed (`failover.py`)
    half-open   it passed its checks again; the first prompt it answers closes the breaker, the
                first that is given up opens it

A prompt is given up when whoever asked has no more time. That alone says little: deadlines may be
short, and a slow server answers others meanwhile. So only prompts count in whose whole time, of
LEAST_SECONDS at least, the server answered nothing; and of those that waited at the same time, one.
"""

import math

from services.engines.contract import BreakerState

MAX_GIVEN_UP = 3
LEAST_SECONDS = 0.25


class Breaker:
    """Of one server; begins open. All times are of the event loop's clock."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.state: BreakerState = "open"
        # How often it came back and was left out before it had answered anything.
        self.num_in_vain = 0
        self._was_closed = False
        self._answered_at = -math.inf
        self._num_given_up = 0
        self._last_given_up_at = -math.inf

    def note_answer(self, now: float) -> None:
        """The server answered a prompt."""
        self._answered_at = now
        self._num_given_up = self.num_in_vain = 0
        if self.state == "half-open":
            self._close()

    def note_given_up(self, asked_at: float, now: float) -> bool:
        """A prompt was given up; whether the server is to be left out for it."""
        answered_meanwhile = self._answered_at >= asked_at
        counted_already = self._last_given_up_at >= asked_at
        if answered_meanwhile or counted_already or now - asked_at < LEAST_SECONDS:
            return False
        self._last_given_up_at = now
        self._num_given_up += 1
        return self.state == "half-open" or self._num_given_up >= MAX_GIVEN_UP

    def open(self) -> None:
        """It is left out."""
        self.num_in_vain += self.state == "half-open"
        self.state = "open"
        self._num_given_up = 0

    def admit(self) -> None:
        """It passed its checks."""
        if self._was_closed:
            self.state = "half-open"
        else:  # the first time nothing speaks against it
            self._close()

    def _close(self) -> None:
        self.state = "closed"
        self._was_closed = True
