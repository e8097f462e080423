"""Hedged requests: a late prompt is sent to a second server too (Dean and Barroso, The Tail at
Scale, 2013). The first answer counts, the other request is cancelled.

This helps only if one server stalls while another could answer; if all are busy it makes them
busier. So a prompt is hedged only if it has waited longer than nearly all recent prompts, only to a
server with less load, and only a share of all prompts is. A server that stalls for long is handled
by the circuit breaker.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

QUANTILE = 0.95
# Hedges that may be saved up for a moment in which a server with many prompts stalls.
MOST_SAVED = 32.0
NUM_REMEMBERED = 512
# The quantile of fewer answers is too uncertain. It is computed again after so many answers.
NUM_TO_JUDGE = 64


class Hedging:
    """The hedging of one pool of servers; times in seconds."""

    def __init__(self, share: float) -> None:
        """At most `share` of the prompts is hedged, and nothing before NUM_TO_JUDGE answers."""
        self._share = share
        self.num_hedged = self.num_won = 0
        self._latencies: deque[float] = deque(maxlen=NUM_REMEMBERED)
        self._num_to_next_look = NUM_TO_JUDGE
        self._late_after: float | None = None
        self._saved = 0.0

    def note_prompt(self) -> None:
        """A prompt is sent; each adds `share` of a hedge to the savings."""
        self._saved = min(self._saved + self._share, MOST_SAVED)

    def note_answer(self, seconds: float) -> None:
        """A prompt was answered after so long."""
        self._latencies.append(seconds)
        self._num_to_next_look -= 1
        if self._num_to_next_look == 0:
            self._num_to_next_look = NUM_TO_JUDGE
            ordered = sorted(self._latencies)
            self._late_after = ordered[int(QUANTILE * len(ordered))]

    @property
    def late_after_seconds(self) -> float | None:
        """When a prompt is late; None if that is not known yet, or no hedge is left."""
        return self._late_after if self._saved >= 1.0 else None

    def spend(self) -> None:
        """A prompt is hedged."""
        self._saved -= 1.0
        self.num_hedged += 1


async def first_answer(
    first: Awaitable[T],
    *,
    late_after_seconds: float,
    second: Callable[[], Coroutine[Any, Any, T] | None],
    passing: type[Exception],
) -> tuple[T, bool]:
    """The answer of `first` or, when that is late, of `second()` (None: there is none), whichever
    comes first, and whether it is the second's. A `passing` error of one leaves it to the other;
    any other error is raised at once. Nothing is left running.

    `first` runs in this task and begins at once, so it counts in its server's load before the next
    prompt is sent. A prompt that is not late (nearly all are not) costs a timer and no task.
    """
    scope, is_first_running = asyncio.timeout(None), True
    others: list[asyncio.Task[T]] = []  # the second request, once it is sent

    def end_first(other: asyncio.Task[T]) -> None:
        has_won = not other.cancelled() and not isinstance(other.exception(), passing)
        if has_won and is_first_running:
            scope.reschedule(-math.inf)

    def start_second() -> None:
        asked = second()
        if asked is not None:
            others.append(asyncio.create_task(asked))
            others[0].add_done_callback(end_first)

    timer = asyncio.get_running_loop().call_later(late_after_seconds, start_second)
    try:
        try:
            async with scope:
                return await first, False
        except TimeoutError:
            if not scope.expired():
                raise
        except passing:
            if not others:
                raise
        finally:
            timer.cancel()
            is_first_running = False
        return await others[0], True
    finally:
        for other in others:
            if not other.done():
                other.cancel()
                await asyncio.wait([other])
