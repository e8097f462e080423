"""The choice of a server for a prompt.

Prompts about one item go to one server: only that one has the item's image tokens cached, and they
are most of the work of a 7B model. The server is found by rendezvous hashing (Thaler and
Ravishankar, 1998): each server gets a weight for the item, and the heaviest wins. This needs no
ring and no virtual nodes and shares evenly. When a server leaves, only its own items move, each to
its second choice.

Loads are bounded (Mirrokni, Thorup and Zadimoghaddam, 2018), so that a popular item cannot overload
its server: a server with LOAD_FACTOR times the mean load is skipped, and the item's next choice,
always the same one, takes the prompt.
"""

import hashlib
import math
from collections.abc import Mapping

LOAD_FACTOR = 1.25


def choose_server(key: str | None, loads: Mapping[str, int]) -> str:
    """The server for a prompt about item `key`; the least loaded one without an item (None).

    `loads` has the number of prompts at each server in use; at least one server.
    """
    if key is None:
        return min(loads, key=loads.__getitem__)
    bound = math.ceil(LOAD_FACTOR * (sum(loads.values()) + 1) / len(loads))
    # At least one server is below the bound, since the bound is above the mean.
    below = [server for server, load in loads.items() if load < bound]
    return max(below, key=lambda server: _weight(key, server))


def _weight(key: str, server: str) -> bytes:
    return hashlib.blake2b(f"{key}\x00{server}".encode(), digest_size=8).digest()
