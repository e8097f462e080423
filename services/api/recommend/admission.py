"""Decides which prompts go to the engine: those that it can probably answer in time.

A prompt that misses its deadline wastes engine time and delays all later ones. So completion is
estimated from recent throughput: a busy engine answers one prompt every `pace` seconds, and the
number of prompts under way is known. Prompts that would be late are not sent (they are shed).

vLLM computes in batches, so its answers come in bursts. The pace is a mean over whole bursts: in
the middle of one, the wait for it would count for the few answers that are there. A silence is
ordinary if it is as long as those between the last bursts; a longer one counts as the pace, since
the engine stalls.

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
# The pace is a mean over about so many answers, or over the last burst if that had more. Each
# second without work halves the weight of earlier answers.
NUM_REMEMBERED = 32
IDLE_HALVES_SECONDS = 1.0
# An answer belongs to a burst if it came within this share of the wait for the burst.
BURST_SHARE = 0.125
# How much longer than the last silences one may be; and whatever was usual, no silence that fills
# this share of a request's time is ordinary.
SILENCE_MARGIN = 2.0
SILENCE_SHARE = 0.25


class Admission:
    """Admits the prompts of one process to its engine."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Before the first answer, only the time without any answer limits what is admitted."""
        self._now = clock
        self._num_under_way = 0
        # The last answer while prompts are under way, else the time at which the last one ended.
        self._since = 0.0
        self._seen = _Throughput()
        self._burst = _Burst()
        self._was_silent = False

    @property
    def num_under_way(self) -> int:
        """Prompts that were admitted and are not answered yet."""
        return self._num_under_way

    def pace_seconds(self, seconds_left: float = math.inf) -> float:
        """Mean seconds between two answers, or the time since the last one if that is longer than a
        request with `seconds_left` takes for ordinary.
        """
        silence = self._now() - self._since if self._num_under_way else 0.0
        usual = SILENCE_MARGIN * self._seen.silence_seconds
        is_ordinary = silence <= min(usual, SILENCE_SHARE * seconds_left)
        return self._seen.pace_seconds if is_ordinary else max(self._seen.pace_seconds, silence)

    def num_admitted(self, num_prompts: int, seconds_left: float, priority: Priority) -> int:
        """How many of a request's prompts to send."""
        pace = self.pace_seconds(seconds_left)
        fitting = SHARES[priority] * seconds_left / pace if pace > 0 else math.inf
        if self._num_under_way == 0:
            return max(1, int(min(fitting, num_prompts)))
        return num_prompts if self._num_under_way + num_prompts <= fitting else 0

    @contextmanager
    def asking(self, num_prompts: int) -> Iterator["Asked"]:
        """Count these prompts as under way; those not answered inside the block are given up."""
        if self._num_under_way == 0:
            self._seen.fade(0.5 ** ((self._now() - self._since) / IDLE_HALVES_SECONDS))
            self._since = self._now()
        self._num_under_way += num_prompts
        asked = Asked(self, num_prompts)
        try:
            yield asked
        finally:
            self._num_under_way -= asked.num_left
            if self._num_under_way == 0:
                self._end_burst()
                if asked.num_left > asked.num_failed:
                    self._seen.note_stall(self._now() - self._since)
                    self._was_silent = asked.num_answered == 0
                self._since = self._now()

    def note_answer(self) -> None:
        """Record that one of the prompts under way was answered."""
        now = self._now()
        if self._was_silent:  # after a silence it may be another engine: measure anew
            self._seen = _Throughput()
            self._was_silent = False
        waited = now - self._since
        if not self._burst.takes(waited):
            self._end_burst()
        self._burst.add(waited)
        self._since = now
        self._num_under_way -= 1

    def _end_burst(self) -> None:
        self._seen.note(self._burst)
        self._burst = _Burst()


class _Burst:
    """Answers that came together, after one wait."""

    def __init__(self) -> None:
        self.num_answers = 0
        self.waited_seconds = 0.0
        self.seconds = 0.0  # the wait included

    def takes(self, waited_seconds: float) -> bool:
        """Whether an answer so long after the last one belongs to it."""
        lasted = self.seconds - self.waited_seconds + waited_seconds
        return self.num_answers == 0 or lasted < BURST_SHARE * self.waited_seconds

    def add(self, waited_seconds: float) -> None:
        """Add an answer."""
        if self.num_answers == 0:
            self.waited_seconds = waited_seconds
        self.num_answers += 1
        self.seconds += waited_seconds


class _Throughput:
    """What was seen lately of an engine at work; what was seen earlier weighs less."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._num_answers = 0.0
        # Weighted by its length, a silence is as long as one that a request meets.
        self._squared_silences = 0.0

    @property
    def pace_seconds(self) -> float:
        """Mean seconds between two answers; 0 before the first."""
        return self._seconds / (self._num_answers or 1)

    @property
    def silence_seconds(self) -> float:
        """How long a silence a request meets, on average."""
        return self._squared_silences / (self._seconds or 1)

    def fade(self, kept: float) -> None:
        """Let all that was seen weigh less."""
        self._seconds *= kept
        self._num_answers *= kept
        self._squared_silences *= kept

    def note(self, burst: _Burst) -> None:
        """Count a burst that is over."""
        self.fade((1 - 1 / NUM_REMEMBERED) ** burst.num_answers)
        self._seconds += burst.seconds
        self._num_answers += burst.num_answers
        self._squared_silences += burst.waited_seconds**2

    def note_stall(self, seconds: float) -> None:
        """Count time in which the engine had work and answered nothing."""
        self._seconds += seconds


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
