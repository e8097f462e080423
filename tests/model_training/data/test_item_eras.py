"""Eras: when an item was current, from times or from the order of histories alone."""

import numpy as np

from model_training.data.item_eras import item_eras


def test_items_are_ordered_by_the_mean_time_at_which_they_were_taken():
    histories = [[0, 1], [2, 1]]
    times = [[50, 60], [10, 20]]  # item 0 at 50, item 1 at 40 on average, item 2 at 10

    eras = item_eras(histories, 3, times)

    assert eras.tolist() == [1.0, 0.5, 0.0]


def test_without_times_the_order_within_histories_says_what_came_first():
    histories = [[3, 1], [1, 0], [0, 2], [3, 0]]

    eras = item_eras(histories, 4, None)

    assert np.argsort(eras).tolist() == [3, 1, 0, 2]


def test_an_order_is_carried_over_histories_that_share_one_item():
    histories = [[0, 1]] * 5 + [[1, 2]] * 5  # nobody took both 0 and 2

    eras = item_eras(histories, 3, None)

    assert eras.tolist() == [0.0, 0.5, 1.0]


def test_an_item_that_nobody_took_has_no_era():
    eras = item_eras([[0, 2]], 3, None)

    assert np.isnan(eras).tolist() == [False, True, False]


def test_histories_of_one_item_have_eras_though_no_order():
    eras = item_eras([[0], [1]], 2, None)

    assert np.isfinite(eras).all()


def test_items_of_one_time_have_one_era_wherever_the_catalogue_has_them():
    eras = item_eras([[0, 1], [2, 3]], 4, [[50, 50], [50, 90]])

    assert eras.tolist() == [1 / 3, 1 / 3, 1 / 3, 1.0]
