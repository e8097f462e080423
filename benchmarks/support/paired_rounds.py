"""Comparisons in rounds: every side works once a round, so that a slower minute slows them all.

A ratio is taken within a round; the figure is the median over the rounds and, as its
spread, the lowest and the highest.
"""

import argparse
import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

from benchmarks.support.random_model import SHAPES
from benchmarks.support.runner import markdown

T = TypeVar("T")

MIN_ROUNDS = 3
# The quick form of a benchmark with `add_options`.
QUICK = ("--rounds", str(MIN_ROUNDS), "--model", "tiny", "--settle-seconds", "0")

# vLLM's processes poll for a second after their last answer; they must not disturb who comes next.
SETTLE_SECONDS = 1.2


@dataclass(frozen=True, slots=True)
class Claim:
    """`side` is at least `bar` times as good as `against`; what `against` takes counts `share`
    times, where it worked on only part of what `side` did. A claim without a bar only informs.
    """

    side: str
    against: str
    bar: float | None = None
    share: float = 1.0


@dataclass(slots=True)
class Rounds:
    """Seconds of each side, round after round."""

    title: str
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    settle_seconds: float = SETTLE_SECONDS

    async def time(self, side: str, work: Callable[[], Awaitable[T]], *, repeats: int = 1) -> T:
        """Let one side work, once the others are quiet; `repeats` is how many times `work` does
        what is reported.
        """
        await asyncio.sleep(self.settle_seconds)
        started = time.perf_counter()
        result = await work()
        self.add(side, (time.perf_counter() - started) / repeats)
        return result

    def add(self, side: str, seconds: float) -> None:
        """Note what one side took in this round."""
        self.seconds[side].append(seconds)
        print(f"{self.title}: {side} {seconds:.3f} s", file=sys.stderr, flush=True)

    def judge(self, claim: Claim) -> dict[str, Any]:
        """Ratio, its spread, both sides' seconds and the bar of one claim.

        ValueError if there are fewer than MIN_ROUNDS rounds, or sides that missed one.
        """
        side, against = self.seconds[claim.side], self.seconds[claim.against]
        if len(side) < MIN_ROUNDS:
            raise ValueError(f"{claim.side} worked in {len(side)} rounds; {MIN_ROUNDS} are needed")
        ratios = [claim.share * theirs / ours for ours, theirs in zip(side, against, strict=True)]
        return {
            "bar": claim.bar,
            "ratio": round(median(ratios), 3),
            "spread": [round(min(ratios), 3), round(max(ratios), 3)],
            "seconds": round(median(side), 4),
            "against_seconds": round(claim.share * median(against), 4),
            "rounds": len(ratios),
        }


def add_options(parser: argparse.ArgumentParser, *, rounds: int) -> None:
    """Add the options of every comparison on a random model."""
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--model", choices=SHAPES, default="small", help="its size")
    parser.add_argument("--settle-seconds", type=float, default=SETTLE_SECONDS)


def comparison_table(measured: dict[str, dict[str, Any]], names: dict[str, str]) -> str:
    """One row a claim; `names` says in words what each key of `measured` is."""
    header = ("work", "reference, s", "here, s", "ratio", "spread", "rounds", "bar", "reached")
    return markdown(header, [_row(names[key], claim) for key, claim in measured.items()])


def _row(name: str, claim: dict[str, Any]) -> tuple[str, ...]:
    bar = claim["bar"]
    low, high = claim["spread"]
    return (
        name,
        f"{claim['against_seconds']:.3f}",
        f"{claim['seconds']:.3f}",
        f"{claim['ratio']:.2f}",
        f"{low:.2f} to {high:.2f}",
        str(claim["rounds"]),
        "" if bar is None else f"{bar:g}",
        "" if bar is None else "yes" if claim["ratio"] >= bar else "NO",
    )
