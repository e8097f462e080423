"""Counts and latencies of a replay, and their summary."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clients.python import ClientError, ProblemError
from services.core import wire


@dataclass(slots=True)
class Figures:
    """Counts, and the seconds of each request that got a response."""

    num_sent: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    interact_seconds: list[float] = field(default_factory=list)
    recommend_seconds: list[float] = field(default_factory=list)
    late_seconds: list[float] = field(default_factory=list)

    def note_taken(self, answer: wire.InteractionsResponse) -> None:
        """Count the interactions of a batch by outcome."""
        self.counts["accepted"] += answer.accepted
        self.counts["duplicates"] += answer.duplicates
        self.counts["rejected"] += len(answer.rejected)
        self.reasons.update(each.reason for each in answer.rejected)

    def note_ranking(self, answer: wire.RecommendResponse) -> None:
        """Count a ranking."""
        self.counts["recommendations"] += 1
        self.counts["degraded"] += answer.degraded

    def note_error(self, error: ClientError) -> None:
        """Count a request that failed, by its problem or the kind of failure."""
        if isinstance(error, ProblemError):
            self.errors[error.problem.type.removeprefix("/problems/")] += 1
        else:
            self.errors[type(error.__cause__ or error).__name__] += 1

    def summary(self, seconds: float) -> dict[str, Any]:
        """All of it after so many seconds, times in milliseconds."""
        answered = sum(self.counts[name] for name in ("accepted", "duplicates", "rejected"))
        return {
            "sent": self.num_sent,
            "accepted": self.counts["accepted"],
            "duplicates": self.counts["duplicates"],
            "rejected": self.counts["rejected"],
            "reasons": dict(self.reasons.most_common(5)),
            "recommendations": self.counts["recommendations"],
            "degraded": self.counts["degraded"],
            "errors": dict(self.errors.most_common()),
            "interactions_per_second": round(answered / seconds, 1) if seconds else 0.0,
            "interact_ms": percentiles_ms(self.interact_seconds),
            "recommend_ms": percentiles_ms(self.recommend_seconds),
            "late_ms": percentiles_ms(self.late_seconds),
            "seconds": round(seconds, 3),
        }


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Nearest-rank percentiles in milliseconds; empty for none."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {
        name: round(1000 * ordered[math.ceil(share * len(ordered)) - 1], 2)
        for name, share in shares.items()
    }
