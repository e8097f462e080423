"""Which arm of an experiment a user belongs to: the same in every process and at any time."""

import hashlib
from collections.abc import Sequence

from services.core.records import UserId


def draw_arm(experiment: str, user_id: UserId, weights: Sequence[float]) -> int:
    """The place in `weights` (any positive numbers) that this user falls into.

    The experiment's name salts the hash, so that the users of an arm are mixed anew for the next
    experiment: what the last one did to them does not stay together.
    """
    digest = hashlib.sha256(f"{experiment}\x00{user_id}".encode()).digest()
    point = int.from_bytes(digest[:8]) / 2**64 * sum(weights)
    for place, weight in enumerate(weights):
        point -= weight
        if point < 0:
            return place
    return len(weights) - 1  # of the last digit of a sum
