"""Which prompts are asked at all: those that will be answered in time, as things stand.

A prompt that is given up at its deadline helped nobody and slowed down all that came after it. So
what the engine was seen to do decides: while it has work it answers one prompt every `pace`
seconds, the prompts before a new one are known, and what would be answered too late is not asked
(it is shed).

Shedding takes whole requests, so that some rankings are complete rather than all of them partial;
only an idle engine takes the best few of a request that is too large for its time. Background
requests fill but half of the time that interactive ones may: they are shed first, and what they
queue never delays an interactive request past its deadline. One prompt is always let through when
nothing is under way: it finds out whether the engine is faster again.

Each process counts what it asks and what is answered to it, whatever the engine: what others ask
of the same servers shows as a slower pace. Texts are not counted; vLLM computes them after scores.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.core.wire.recommend import Priority

# Of the time that a request has left, what the expected wait may fill: the pace is a mean.
SHARES: dict[Priority, float] = {"interactive": 0.8, "background": 0.4}
# The pace is a mean over about so many answers, since they come in bursts, as vLLM computes in
# batches; and what was seen before a time without work counts half for each such second.
NUM_REMEMBERED = 32
IDLE_HALVES_SECONDS = 1.0


class Admission:
    """Of one process's prompts to its engine."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Until something was answered, all is let through that would not wait behind a silence."""
        self._now = clock
        self._num_under_way = 0
        # Since when nothing was answered though there was work, or since when there is none.
        self._since = 0.0
        # What the engine had work for, and what it answered in that time; both fade.
        self._busy_seconds = 0.0
        self._num_answered = 0.0
        self._was_silent = False

    @property
    def num_under_way(self) -> int:
        """Prompts that were let through and are not answered yet."""
        return self._num_under_way

    @property
    def pace_seconds(self) -> float:
        """Seconds between two answers; a silence that lasts longer than the mean counts itself."""
        mean = self._busy_seconds / (self._num_answered or 1)
        return max(mean, self._now() - self._since if self._num_under_way else 0.0)

    def num_admitted(self, num_prompts: int, seconds_left: float, priority: Priority) -> int:
        """How many of a request's prompts are worth asking."""
        pace = self.pace_seconds
        fitting = SHARES[priority] * seconds_left / pace if pace > 0 else math.inf
        if self._num_under_way == 0:
            return max(1, int(min(fitting, num_prompts)))
        return num_prompts if self._num_under_way + num_prompts <= fitting else 0

    @contextmanager
    def asking(self, num_prompts: int) -> Iterator["Asked"]:
        """These prompts are under way; those that are not answered in the block are given up."""
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
        """One of the prompts under way was answered."""
        now = self._now()
        if self._was_silent:  # an engine that answers again may be another one: measure it anew
            self._busy_seconds = self._num_answered = 0.0
            self._was_silent = False
        kept = 1 - 1 / NUM_REMEMBERED
        self._busy_seconds = kept * self._busy_seconds + now - self._since
        self._num_answered = kept * self._num_answered + 1
        self._since = now
        self._num_under_way -= 1


class Asked:
    """One request's prompts that are under way."""

    def __init__(self, admission: Admission, num_prompts: int) -> None:
        """See `Admission.asking`."""
        self.num_left = num_prompts
        self.num_answered = self.num_failed = 0
        self._admission = admission

    def note_answer(self) -> None:
        """One was answered."""
        self.num_left -= 1
        self.num_answered += 1
        self._admission.note_answer()

    def note_failure(self) -> None:
        """One came to nothing without the engine's work, which says nothing about its pace."""
        self.num_failed += 1
