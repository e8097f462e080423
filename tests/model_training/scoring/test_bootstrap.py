"""Intervals and tests: that they say what they promise, and that weights equal redrawing."""

import numpy as np
import pytest

from model_training.scoring.bootstrap import Bootstrap
from model_training.scoring.metrics import auc


def labels_of(scores):
    labels = np.zeros(scores.shape, int)
    labels[:, 0] = 1
    return labels


def test_the_interval_of_a_mean_is_about_two_standard_errors_either_way():
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    low, high = Bootstrap(400).intervals({"m": values})["m"]

    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.3 * error)


def test_nineteen_intervals_in_twenty_cover_the_truth():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        low, high = Bootstrap(100).intervals({"m": (rng.random(100) < 0.3).astype(float)})["m"]
        covered += low <= 0.3 <= high

    assert 180 <= covered <= 200  # 190 expected, standard deviation 3


def test_the_pooled_auc_of_weighted_users_is_that_of_the_users_drawn():
    rng = np.random.default_rng(2)
    scores = rng.integers(0, 6, (30, 5)).astype(float)  # with ties
    aucs = []
    for weights in Bootstrap(30, num_resamples=50)._draws(1):
        for counts in weights.astype(int):
            drawn = np.repeat(scores, counts, axis=0)
            aucs.append(auc(drawn, labels_of(drawn)))

    interval = Bootstrap(30, num_resamples=50).auc_interval(scores)
    assert interval == pytest.approx(tuple(np.quantile(aucs, [0.025, 0.975])))


def test_every_draw_has_as_many_users_as_there_are():
    weights = np.concatenate(list(Bootstrap(7, num_resamples=40)._draws(1)))

    assert weights.shape == (40, 7)
    assert (weights.sum(axis=1) == 7).all()


def test_draws_do_not_depend_on_how_many_are_made_at_once():
    whole = np.concatenate(list(Bootstrap(50, num_resamples=60)._draws(1)))
    portions = np.concatenate(list(Bootstrap(50, num_resamples=60)._draws(1_000_000)))

    assert (whole == portions).all()


def test_a_model_against_itself_differs_by_nothing():
    values = np.random.default_rng(3).random(100)
    found = Bootstrap(100).compare(values, values)

    assert (found.difference, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_a_small_difference_that_all_users_share_is_found_through_large_ones_between_users():
    values = np.random.default_rng(4).normal(0, 10, 300)
    found = Bootstrap(300).compare(values + 0.1, values)

    assert (found.low, found.high) == pytest.approx((0.1, 0.1))
    assert found.p_value == pytest.approx(2 / 1001)


def test_both_directions_have_one_p_value():
    rng = np.random.default_rng(5)
    ours, theirs = rng.normal(0.1, 1, 200), rng.normal(0, 1, 200)
    there, back = Bootstrap(200).compare(ours, theirs), Bootstrap(200).compare(theirs, ours)

    assert there.p_value == back.p_value
    assert there.difference == -back.difference


def test_chance_is_called_a_difference_one_time_in_twenty():
    rng = np.random.default_rng(6)
    found = [
        Bootstrap(80).compare(rng.random(80), rng.random(80)).p_value < 0.05 for _ in range(300)
    ]

    assert 3 <= sum(found) <= 33  # 15 expected, standard deviation 4


def test_no_users_are_refused():
    with pytest.raises(ValueError, match="no user"):
        Bootstrap(0)
