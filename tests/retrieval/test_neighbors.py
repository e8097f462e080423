"""Item-kNN scores, against sums written out by hand."""

import numpy as np
import pytest

from services.retrieval.neighbors import MAX_HISTORY, Neighbors

# Item 0 is like 1 (.5) and 2 (.2); item 1 is like 2 (.4); item 2 has no neighbors.
NEIGHBORS = Neighbors(
    starts=np.array([0, 2, 3, 3]),
    indices=np.array([1, 2, 2], np.int32),
    weights=np.array([0.5, 0.2, 0.4], np.float32),
)


def test_a_score_sums_over_the_history_and_prefers_the_recent():
    assert NEIGHBORS.score_history([0, 1]).tolist() == pytest.approx(
        [0, 0.9 * 0.5, 0.9 * 0.2 + 0.4]
    )


def test_the_order_of_a_history_matters():
    assert NEIGHBORS.score_history([1, 0]).tolist() == pytest.approx([0, 0.5, 0.9 * 0.4 + 0.2])


def test_an_empty_history_points_at_nothing():
    assert NEIGHBORS.score_history([]).tolist() == [0, 0, 0]


def test_a_history_whose_items_have_no_neighbors_points_at_nothing():
    assert NEIGHBORS.score_history([2, 2]).tolist() == [0, 0, 0]


def test_only_the_latest_items_of_a_long_history_count():
    long_ago = [0] * 50

    assert (
        NEIGHBORS.score_history([*long_ago, *[2] * MAX_HISTORY]).tolist()
        == NEIGHBORS.score_history([2]).tolist()
    )
