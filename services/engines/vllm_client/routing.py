"""Which replica takes a prompt.

Prompts about one item go to one replica, because only there are the item's image tokens cached, and
a 7B model computes them for longer than all the rest. The replica is found by rendezvous hashing
(Thaler and Ravishankar, 1998): every replica gets a weight for the item, the heaviest wins. That
needs no ring and no virtual nodes, shares evenly, and when a replica leaves, only its own items
move, each to its second choice; a dozen replicas are weighed in microseconds.

An item that everybody asks for must not drown its replica, so loads are bounded (Mirrokni, Thorup
and Zadimoghaddam, 2018): who has LOAD_FACTOR times the mean already is passed over, and the next
choice, always the same one for this item, takes the prompt.
"""

import hashlib
import math
from collections.abc import Mapping

LOAD_FACTOR = 1.25


def choose_server(key: str | None, loads: Mapping[str, int]) -> str:
    """The replica for a prompt about `key`; for one about nothing shared (None) the least loaded.

    `loads` has the prompts that wait or run at each replica in use; at least one.
    """
    if key is None:
        return min(loads, key=loads.__getitem__)
    if len(loads) == 1:
        return next(iter(loads))
    bound = math.ceil(LOAD_FACTOR * (sum(loads.values()) + 1) / len(loads))
    # At least one replica is below the bound, since the bound is above the mean.
    below = [replica for replica, load in loads.items() if load < bound]
    return max(below, key=lambda replica: _weight(key, replica))


def _weight(key: str, replica: str) -> bytes:
    return hashlib.blake2b(f"{key}\x00{replica}".encode(), digest_size=8).digest()
