"""How often each item was taken, and the order that follows: what a user without a history gets."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


def count_popularity(histories: Iterable[Sequence[int]], num_items: int) -> NDArray[np.int64]:
    """Users who took each item, by item index: (num_items,). A user counts once for an item.

    `histories` hold item indices below `num_items`.
    """
    counts = np.zeros(num_items, np.int64)
    for history in histories:
        counts[np.unique(np.asarray(history, np.int64))] += 1
    return counts


def rank_by_popularity(counts: NDArray[np.int64], item_ids: Sequence[str]) -> NDArray[np.int64]:
    """Item indices, most popular first; equally popular items in the order of their ids."""
    by_id = np.argsort(np.asarray(item_ids, np.str_), kind="stable")
    by_count = np.argsort(-counts[by_id], kind="stable")
    return np.asarray(by_id[by_count], np.int64)
