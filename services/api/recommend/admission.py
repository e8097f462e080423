"""Decides which prompts go to the engine: those that it can probably answer in time.

A prompt that misses its deadline wastes engine time and delays all later ones. So completion is
estimated from recent throughput: a busy engine answers one prompt every `pace` seconds, and the
number of prompts under way is known. Prompts that would be late are not sent (they are shed).

A request is shed as a whole, so that some rankings are complete instead of all being partial. Only
an idle engine takes the best candidates of a request that is too large for its time. Background
requests may fill half of the time that interactive ones may: they are shed first, and never delay
an interactive request past its deadline. When nothing is under way, one prompt is always admitted,
to measure whether the engine is fast again.

Each process counts its own prompts and answers, whatever the engine. Other clients of the same
servers show as a slower pace. Generated texts are not counted; vLLM computes them after scores.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.core.wire.recommend import Priority

# The share of the remaining time that the expected wait may fill: the pace is a mean.
SHARES: dict[Priority, float] = {"interactive": 0.8, "background": 0.4}
# The pace is a mean over about so many answers, because vLLM computes in batches and answers come
# in bursts. Each second without work halves the weight of earlier answers.
NUM_REMEMBERED = 32
IDLE_HALVES_SECONDS = 1.0


class Admission:
    """Admits the prompts of one process to its engine."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Before the first answer, only the time without any answer limits what is admitted."""
        self._now = clock
        self._num_under_way = 0
        # The last answer while prompts are under way, else the time at which the last one ended.
        self._since = 0.0
        # Seconds in which the engine had work, and its answers in that time; both decay.
        self._busy_seconds = 0.0
        self._num_answered = 0.0
        self._was_silent = False

    @property
    def num_under_way(self) -> int:
        """Prompts that were admitted and are not answered yet."""
        return self._num_under_way

    @property
    def pace_seconds(self) -> float:
        """Mean seconds between two answers, or the time since the last one if that is longer."""
        mean = self._busy_seconds / (self._num_answered or 1)
        return max(mean, self._now() - self._since if self._num_under_way else 0.0)

    def num_admitted(self, num_prompts: int, seconds_left: float, priority: Priority) -> int:
        """How many of a request's prompts to send."""
        pace = self.pace_seconds
        fitting = SHARES[priority] * seconds_left / pace if pace > 0 else math.inf
        if self._num_under_way == 0:
            return max(1, int(min(fitting, num_prompts)))
        return num_prompts if self._num_under_way + num_prompts <= fitting else 0

    @contextmanager
    def asking(self, num_prompts: int) -> Iterator["Asked"]:
        """Count these prompts as under way; those not answered inside the block are given up."""
        if self._num_under_way == 0:
            faded = 0.5 ** ((self._now() - self._since) / IDLE_HALVES_SECONDS)
            self._busy_seconds *= faded
            self._num_answered *= faded
            self._since = self._now()
        self._num_under_way += num_prompts
        asked = Asked(self, num_prompts)
        try:
            yield asked
        finally:
            self._num_under_way -= asked.num_left
            if self._num_under_way == 0:
                if asked.num_left > asked.num_failed:
                    self._busy_seconds += self._now() - self._since
                    self._was_silent = asked.num_answered == 0
                self._since = self._now()

    def note_answer(self) -> None:
        """Record that one of the prompts under way was answered."""
        now = self._now()
        if self._was_silent:  # after a silence it may be another engine: measure anew
            self._busy_seconds = self._num_answered = 0.0
            self._was_silent = False
        kept = 1 - 1 / NUM_REMEMBERED
        self._busy_seconds = kept * self._busy_seconds + now - self._since
        self._num_answered = kept * self._num_answered + 1
        self._since = now
        self._num_under_way -= 1


class Asked:
    """The prompts of one request that are under way."""

    def __init__(self, admission: Admission, num_prompts: int) -> None:
        """See `Admission.asking`."""
        self.num_left = num_prompts
        self.num_answered = self.num_failed = 0
        self._admission = admission

    def note_answer(self) -> None:
        """Record an answer."""
        self.num_left -= 1
        self.num_answered += 1
        self._admission.note_answer()

    def note_failure(self) -> None:
        """Record a prompt that failed before the engine computed it: it does not count as pace."""
        self.num_failed += 1
