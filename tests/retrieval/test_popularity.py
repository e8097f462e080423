"""Popularity counts users, trending prefers what was taken of late, and their order is fixed."""

import numpy as np
import pytest

from services.retrieval.popularity import count_popularity, count_trending, rank_items


def test_a_user_counts_once_for_an_item():
    assert count_popularity([[0, 0, 1], [1]], 3).tolist() == [1, 2, 0]


def test_nobody_took_anything():
    assert count_popularity([], 2).tolist() == [0, 0]
    assert count_trending([[]], 2, None).tolist() == [0, 0]


def test_in_an_order_alone_an_interaction_counts_half_for_each_that_came_after_it():
    assert count_trending([[0, 1, 2], [2]], 3, None).tolist() == [0.25, 0.5, 2.0]


def test_of_a_users_repeats_the_last_one_counts():
    assert count_trending([[0, 1, 0]], 2, None).tolist() == [1.0, 0.5]


def test_with_a_clock_an_interaction_counts_half_for_each_tenth_of_the_time_span():
    times = [[1000, 1900], [2000]]

    found = count_trending([[0, 1], [2]], 3, times)

    assert found == pytest.approx([0.5**10, 0.5, 1.0], rel=0.25)


def test_one_wrong_clock_does_not_make_everything_else_alike():
    histories = [[0] if user < 300 else [1] for user in range(600)]
    times = [[1_000 + user] for user in range(600)]

    right = count_trending(histories, 3, times)
    wrong = count_trending([*histories, [2]], 3, [*times, [900_000]])

    assert wrong[:2] == pytest.approx(right[:2], rel=0.1)


def test_interactions_of_one_moment_all_count_alike():
    assert count_trending([[0], [1]], 2, [[5], [5]]).tolist() == [1.0, 1.0]


def test_equal_items_come_by_the_second_count_and_then_by_their_index():
    scores, ties = np.array([1.0, 5.0, 1.0, 5.0]), np.array([2, 1, 2, 3])

    assert rank_items(scores, ties).tolist() == [3, 1, 0, 2]
