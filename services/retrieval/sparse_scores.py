"""Scores of the few items of a catalogue that a history leads to.

Item-kNN and titles score thousands of a million items. Their sums are sparse, so that the cost of a
request depends on the items it touches and not on the size of the catalogue.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Summing into a row of the whole catalogue is faster than sorting from this share of it on.
DENSE_SHARE = 1 / 16


@dataclass(frozen=True)
class SparseScores:
    """Items in ascending order of their index, each once, with scores above 0."""

    items: NDArray[np.int64]
    scores: NDArray[np.float64]

    @classmethod
    def sum(
        cls, items: NDArray[np.int64], parts: NDArray[np.float64], num_items: int
    ) -> "SparseScores":
        """Add up the parts of each item; `items` may name one many times."""
        if len(items) > DENSE_SHARE * num_items:
            totals = sums(items, parts, num_items)
            named = np.flatnonzero(totals)
            return cls(named, totals[named])
        named, place = np.unique(items, return_inverse=True)
        totals = sums(place, parts, len(named))
        return cls(named[totals > 0], totals[totals > 0])

    def of(self, items: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores of these items, 0 for those without one; in the order given."""
        if not len(self.items):
            return np.zeros(len(items))
        place = np.searchsorted(self.items, items).clip(max=len(self.items) - 1)
        return np.where(self.items[place] == items, self.scores[place], 0.0)

    def best(self, num: int) -> NDArray[np.int64]:
        """The `num` items with the highest scores, best first; of equals the lower index."""
        return self.items[top(self.scores, num)]


def sums(
    places: NDArray[np.integer], parts: NDArray[np.floating], num_places: int
) -> NDArray[np.float64]:
    """Sum of the parts of each place: (num_places,)."""
    return np.asarray(np.bincount(places, parts, num_places), np.float64)


def ranges(starts: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """start, start + 1, ... of every range, one after another."""
    ends = np.cumsum(lengths)
    shift = np.repeat(starts - (ends - lengths), lengths)
    return np.asarray(np.arange(len(shift)) + shift, np.int64)


def top(scores: NDArray[np.floating], num: int) -> NDArray[np.int64]:
    """Places of the `num` highest scores, best first; of equals the earlier place."""
    if num < len(scores):
        # Everything at or above the num-th highest, so that equals are not cut at random.
        bound = np.partition(scores, len(scores) - num)[len(scores) - num] if num else np.inf
        places = np.flatnonzero(scores >= bound)
    else:
        places = np.arange(len(scores))
    return places[np.argsort(-scores[places], kind="stable")][:num].astype(np.int64)
