"""Sparse scores: the same sums either way, and a fixed order of equals."""

import numpy as np
import pytest

from services.retrieval.sparse_scores import SparseScores, top


@pytest.mark.parametrize("num_items", [8, 1_000_000])
def test_parts_of_an_item_are_added_up_whatever_the_catalogues_size(num_items):
    found = SparseScores.sum(np.array([7, 2, 7]), np.array([0.5, 1.0, 0.25]), num_items)

    assert found.items.tolist() == [2, 7]
    assert found.scores.tolist() == [1.0, 0.75]


def test_items_not_pointed_at_score_zero_in_the_order_asked_for():
    found = SparseScores(np.array([2, 7]), np.array([1.0, 0.75]))

    assert found.of(np.array([7, 0, 2, 9])).tolist() == [0.75, 0, 1.0, 0]


def test_nothing_pointed_at_scores_zero():
    found = SparseScores.sum(np.empty(0, np.int64), np.empty(0), 5)

    assert found.of(np.array([0, 4])).tolist() == [0, 0]
    assert found.best(3).tolist() == []


@pytest.mark.parametrize(("num", "expected"), [(0, []), (2, [1, 3]), (9, [1, 3, 4, 0, 2])])
def test_of_equal_scores_the_earlier_comes_first(num, expected):
    assert top(np.array([1.0, 5.0, 1.0, 5.0, 3.0]), num).tolist() == expected
