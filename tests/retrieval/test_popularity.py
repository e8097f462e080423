"""Popularity counts users, and its order is the same everywhere."""

import numpy as np

from services.retrieval.popularity import count_popularity, rank_by_popularity


def test_a_user_counts_once_for_an_item():
    assert count_popularity([[0, 0, 1], [1]], 3).tolist() == [1, 2, 0]


def test_nobody_took_anything():
    assert count_popularity([], 2).tolist() == [0, 0]


def test_equally_popular_items_come_in_the_order_of_their_ids():
    counts = np.array([1, 5, 1, 5])

    assert rank_by_popularity(counts, ["b", "z", "a", "y"]).tolist() == [3, 1, 2, 0]
