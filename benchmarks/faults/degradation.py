"""What one fault did to the answers of `POST /recommend`: the figures, from all answers.

Moments are times of the machine's monotonic clock, in this order: the load begins, the fault
begins, the fault ends (a killed server listens again), the load ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.faults.load import Answer

# How late an answer may be, past its deadline.
ALLOWED_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Moments:
    """When what happened."""

    struck_at: float
    mended_at: float


def judge(answers: Sequence[Answer], moments: Moments, deadline: float) -> dict[str, Any]:
    """The figures; unless they say so, of all that was not answered when the fault began."""
    before = [each for each in answers if each.ended_at < moments.struck_at]
    since = [each for each in answers if each.ended_at >= moments.struck_at]
    during = [each for each in since if each.sent_at < moments.mended_at]
    after = [each for each in since if each.sent_at >= moments.mended_at]
    in_time = [each for each in since if each.status and each.seconds <= deadline + ALLOWED_SECONDS]
    return {
        "requests": len(since),
        "in_time_share": _share(len(in_time), len(since)),
        "answered_5xx": sum(each.status >= 500 for each in since),
        "unanswered": sum(not each.status for each in since),
        "degraded_share": _share(sum(bool(each.reason) for each in during), len(during)),
        "reasons": _count(each.reason for each in during if each.reason),
        "p50_ms": _quantile_ms(during, 0.5),
        "p99_ms": _quantile_ms(during, 0.99),
        "worst_ms": _quantile_ms(since, 1.0),
        "full_share_before": _share(sum(each.is_full for each in before), len(before)),
        "full_share_during": _share(sum(each.is_full for each in during), len(during)),
        "full_share_after": _share(sum(each.is_full for each in after), len(after)),
        "recovery_seconds": _recovery_seconds(since, moments),
        # Whether the generator kept up: how late after their due moments requests were sent.
        "sent_late_p99_ms": _quantile(
            sorted(1000 * (each.sent_at - each.due_at) for each in answers), 0.99
        ),
    }


def _recovery_seconds(answers: Sequence[Answer], moments: Moments) -> float | None:
    """From the mending to the first answer with full scores; None if none came."""
    ends = [each.ended_at for each in answers if each.is_full]
    later = [ended_at for ended_at in ends if ended_at >= moments.mended_at]
    return round(min(later) - moments.mended_at, 2) if later else None


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _quantile_ms(answers: Sequence[Answer], share: float) -> float | None:
    return _quantile(sorted(1000 * each.seconds for each in answers), share)


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


def _count(reasons: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return dict(sorted(counts.items()))
