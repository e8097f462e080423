"""Item-kNN scores, against sums written out by hand."""

import numpy as np
import pytest

from services.retrieval.item_knn import MAX_HISTORY, Neighbors

# Item 0 is like 1 (.5) and 2 (.2); item 1 is like 2 (.4); item 2 has no neighbors.
NEIGHBORS = Neighbors(
    starts=np.array([0, 2, 3, 3]),
    indices=np.array([1, 2, 2], np.int32),
    weights=np.array([0.5, 0.2, 0.4], np.float32),
)


def scores(history: list[int]) -> list[float]:
    return NEIGHBORS.score_history(history).of(np.arange(3)).tolist()


def test_a_score_sums_over_the_history_and_prefers_the_recent():
    assert scores([0, 1]) == pytest.approx([0, 0.9 * 0.5, 0.9 * 0.2 + 0.4])


def test_the_order_of_a_history_matters():
    assert scores([1, 0]) == pytest.approx([0, 0.5, 0.9 * 0.4 + 0.2])


@pytest.mark.parametrize("history", [[], [2, 2]])
def test_a_history_without_neighbors_points_at_nothing(history):
    assert scores(history) == [0, 0, 0]


def test_only_the_latest_items_of_a_long_history_count():
    assert scores([*[0] * 50, *[2] * MAX_HISTORY]) == scores([2])
