"""How long to wait before the next try: growing pauses, jitter, and the header Retry-After."""

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_MOST_DOUBLINGS = 60  # more would overflow a float in an outage of hours


def growing_pause(num_failures: int, *, first_seconds: float, longest_seconds: float) -> float:
    """Seconds to wait after the num_failures-th failure in a row (1 or more).

    The first pause is `first_seconds`, each later one twice the one before, up to
    `longest_seconds`.
    """
    doublings = min(num_failures - 1, _MOST_DOUBLINGS)
    return min(longest_seconds, first_seconds * 2.0**doublings)


def jittered(seconds: float) -> float:
    """A random pause between half and one and a half of `seconds`.

    Callers that failed together then do not come back together.
    """
    return seconds * random.uniform(0.5, 1.5)


def retry_after_seconds(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, given as a number or as an HTTP date (RFC 9110).

    None without a header, or with one that is neither. A date in the past gives 0.
    """
    value = (header or "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
