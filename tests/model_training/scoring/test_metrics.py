"""Ranking metrics, against values worked out by hand and by counting pairs."""

import itertools
import math

import numpy as np
import pytest

from model_training.scoring.metrics import Ranking, auc, expected_calibration_error, rank_targets

# Three users, four candidates; the targets come out first, second and last.
SCORES = [[0.9, 0.1, 0.2, 0.3], [0.5, 0.6, 0.1, 0.2], [0.1, 0.4, 0.3, 0.2]]
LABELS = [[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]


def test_targets_at_positions_one_two_and_four_give_these_ranks():
    assert rank_targets(SCORES, LABELS).ranks.tolist() == [0, 1, 3]


def test_metrics_at_two_by_hand():
    ranking = rank_targets(SCORES, LABELS)

    assert ranking.hr(2) == pytest.approx(2 / 3)
    assert ranking.mrr(2) == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert ranking.at(2)["ndcg@2"].mean() == pytest.approx((1 + 1 / math.log2(3) + 0) / 3)


def test_auc_of_a_user_is_the_share_of_negatives_below_the_target():
    per_user = rank_targets(SCORES, LABELS).per_user()
    assert per_user["auc_user"].tolist() == pytest.approx([1, 2 / 3, 0])


def test_the_target_may_stand_in_any_column():
    assert rank_targets([[0.1, 0.9, 0.5]], [[0, 1, 0]]).ranks.tolist() == [0]


def test_pooled_auc_equals_counting_all_pairs():
    rng = np.random.default_rng(3)
    scores, labels = rng.integers(0, 6, (20, 7)).astype(float), np.zeros((20, 7), int)
    labels[:, 2] = 1

    positives, negatives = scores[labels == 1], scores[labels == 0]
    pairs = list(itertools.product(positives, negatives))
    wins = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs)

    assert auc(scores, labels) == pytest.approx(wins / len(pairs))


def test_a_constant_scorer_is_at_chance():
    scores, labels = np.zeros((4000, 21)), np.zeros((4000, 21), int)
    labels[:, 0] = 1
    ranking = rank_targets(scores, labels)

    assert auc(scores, labels) == 0.5
    assert ranking.per_user()["auc_user"].mean() == pytest.approx(0.5, abs=0.02)
    assert ranking.hr(5) == pytest.approx(5 / 21, abs=0.02)


def test_ties_are_broken_alike_under_one_seed_and_otherwise_under_another():
    scores, labels = np.zeros((50, 5)), np.eye(5, dtype=int)[np.zeros(50, int)]
    ranks = rank_targets(scores, labels, seed=1).ranks

    assert (ranks == rank_targets(scores, labels, seed=1).ranks).all()
    assert (ranks != rank_targets(scores, labels, seed=2).ranks).any()


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        ([0.1, 0.2], [1, 0]),
        ([[0.1, 0.2]], [[1, 0, 0]]),
        ([[0.1]], [[1]]),
        ([[0.1, 0.2]], [[1, 1]]),
        ([[0.1, 0.2]], [[0, 0]]),
        ([[0.1, 0.2]], [[2, -1]]),
        ([[0.1, math.nan]], [[1, 0]]),
        (np.zeros((0, 3)), np.zeros((0, 3))),
    ],
)
def test_scores_and_labels_that_do_not_fit_are_refused(scores, labels):
    with pytest.raises(ValueError, match=r"\w"):
        rank_targets(scores, labels)


@pytest.mark.parametrize("k", [0, 5])
def test_a_cutoff_beyond_the_candidates_is_refused(k):
    with pytest.raises(ValueError, match=f"not {k}"):
        rank_targets(SCORES, LABELS).hr(k)


@pytest.mark.parametrize("labels", [[1, 1], [0, 0]])
def test_auc_of_one_class_is_refused(labels):
    with pytest.raises(ValueError, match="at least one positive and one negative"):
        auc([0.1, 0.2], labels)


def test_users_with_different_numbers_of_candidates_have_their_own_auc():
    ranking = Ranking(np.array([0, 10]), np.array([11, 21]))

    assert ranking.per_user()["auc_user"].tolist() == [1.0, 0.5]


def test_metrics_of_users_have_the_metric_as_their_mean():
    ranking = rank_targets(np.random.default_rng(1).random((50, 21)), [[1] + [0] * 20] * 50)
    per_user = ranking.per_user()

    assert list(per_user)[:4] == ["auc_user", "hr@3", "mrr@3", "ndcg@3"]
    assert per_user["ndcg@10"].mean() == pytest.approx(
        np.mean([1 / math.log2(rank + 2) if rank < 10 else 0 for rank in ranking.ranks])
    )


# --- calibration ---------------------------------------------------------------------------------


def test_probabilities_that_come_true_have_no_calibration_error():
    assert expected_calibration_error([0.25] * 4, [1, 0, 0, 0]) == 0


def test_the_error_is_the_gap_between_promise_and_truth():
    # Of 0.9 half come true, of 0.1 none: gaps 0.4 and 0.1, each for half of the rows.
    error = expected_calibration_error([0.9, 0.9, 0.1, 0.1], [1, 0, 0, 0])
    assert error == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)


def test_equal_probabilities_share_a_bin_whatever_the_order_of_rows():
    labels = [1] * 50 + [0] * 1000
    assert expected_calibration_error([1 / 21] * 1050, labels) == pytest.approx(0)
    assert expected_calibration_error([1 / 21] * 1050, labels[::-1]) == pytest.approx(0)


def test_honest_probabilities_of_many_rows_have_an_error_near_zero():
    rng = np.random.default_rng(0)
    promised = rng.random(60_000)
    error = expected_calibration_error(promised, rng.random(60_000) < promised)

    assert error < 0.01


def test_a_prior_weighs_the_classes_as_rows_of_that_share_would():
    rng = np.random.default_rng(1)
    promised, labels = rng.random(200), np.repeat([1, 0], 100)
    more = np.concatenate([promised, *[promised[100:]] * 3])  # every negative four times

    assert expected_calibration_error(promised, labels, prior=0.2) == pytest.approx(
        expected_calibration_error(more, np.concatenate([labels, *[labels[100:]] * 3]))
    )


@pytest.mark.parametrize(
    ("probabilities", "labels", "prior"),
    [
        ([0.1, 1.2], [1, 0], None),
        ([-0.1, 0.2], [1, 0], None),
        ([0.1, math.nan], [1, 0], None),
        ([0.1, 0.2], [0, 0], None),
        ([0.1, 0.2], [1, 1], None),
        ([0.1], [1, 0], None),
        ([], [], None),
        ([0.1, 0.2], [1, 0], 1.0),
    ],
)
def test_calibration_of_what_are_no_probabilities_is_refused(probabilities, labels, prior):
    with pytest.raises(ValueError, match=r"\w"):
        expected_calibration_error(probabilities, labels, prior=prior)
