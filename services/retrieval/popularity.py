"""How often each item was taken, in total and recently: the order for users without a history.

    popularity(i) = users who took i
    trending(i)   = the same, an interaction of age a counting 0.5 ** (a / half-life)

Where interactions have times, the age is the time before the newest interaction of all. Where they
have an order alone, it is the number of interactions that the user went on to have: the end of a
history is as near to now as such data can say.

Half-lives were measured on 1,432 validation users of MicroLens-50k (1 + 20 uniform negatives). With
an order: AUC 0.810, 0.813, 0.807, 0.776 for 0.3, 1, 1.5, 3 interactions, popularity 0.669. With
times (each interaction placed at its item's inferred era): 0.821, 0.829, 0.829, 0.814 for 1/50,
1/20, 1/10, 1/5 of the time span.

Only histories of which nothing is hidden are to be counted. Hiding the last item of some users
takes it from the count of what is current, and of held-out targets before all: popularity counted
so has an AUC of 0.643, counted over the others alone 0.658.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.retrieval.sparse_scores import sums

HALF_LIFE_INTERACTIONS = 1.0
HALF_LIFE_SHARE_OF_SPAN = 0.1
# The span is that of the middle of all times: one wrong clock must not stretch it.
SPAN_QUANTILES = (0.01, 0.99)


def count_popularity(histories: Sequence[Sequence[int]], num_items: int) -> NDArray[np.int64]:
    """Users who took each item, by item index: (num_items,). A user counts once for an item.

    `histories` hold item indices below `num_items`.
    """
    items, _ = _last_occurrences(histories, num_items)
    return np.bincount(items, minlength=num_items).astype(np.int64)


def count_trending(
    histories: Sequence[Sequence[int]],
    num_items: int,
    timestamps_ms: Sequence[Sequence[int]] | None,
) -> NDArray[np.float64]:
    """`count_popularity` with old interactions counting less: (num_items,).

    `timestamps_ms` has the shape of `histories`; None where times across users mean nothing. Of a
    user's repeated interactions with an item the last one counts.
    """
    items, kept = _last_occurrences(histories, num_items)
    if not len(items):
        return np.zeros(num_items)
    if timestamps_ms is None:
        to_come = [np.arange(len(history))[::-1] for history in histories]
        half_lives = np.concatenate(to_come)[kept] / HALF_LIFE_INTERACTIONS
    else:
        times = np.concatenate([np.asarray(row, np.float64) for row in timestamps_ms])[kept]
        first, last = np.quantile(times, SPAN_QUANTILES)
        # A span of nothing makes every age 0: then all count alike.
        half_life = max((last - first) * HALF_LIFE_SHARE_OF_SPAN, 1.0)
        half_lives = np.maximum(last - times, 0.0) / half_life
    return sums(items, 0.5**half_lives, num_items)


def rank_items(
    scores: NDArray[np.float64], ties: NDArray[np.int64] | NDArray[np.float64]
) -> NDArray[np.int64]:
    """Item indices, highest score first; of equals the higher in `ties`, then the lower index."""
    return np.asarray(np.lexsort((-ties, -scores)), np.int64)


def _last_occurrences(
    histories: Sequence[Sequence[int]], num_items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All interactions in one row, of a user's repeats the last: their items, and where they
    stand in the row of all.
    """
    lengths = [len(history) for history in histories]
    if not sum(lengths):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    items = np.concatenate([np.asarray(history, np.int64) for history in histories])
    pairs = np.repeat(np.arange(len(lengths)), lengths) * num_items + items
    _, from_the_end = np.unique(pairs[::-1], return_index=True)
    kept = np.sort(len(pairs) - 1 - from_the_end)
    return items[kept], kept
