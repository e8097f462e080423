"""Ranking metrics, against values worked out by hand and by counting pairs."""

import itertools
import math

import numpy as np
import pytest

from model_training.metrics import auc, rank_targets

# Three users, four candidates; the targets come out first, second and last.
SCORES = [[0.9, 0.1, 0.2, 0.3], [0.5, 0.6, 0.1, 0.2], [0.1, 0.4, 0.3, 0.2]]
LABELS = [[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]


def test_targets_at_positions_one_two_and_four_give_these_ranks():
    assert rank_targets(SCORES, LABELS).ranks.tolist() == [0, 1, 3]


def test_metrics_at_two_by_hand():
    ranking = rank_targets(SCORES, LABELS)

    assert ranking.hr(2) == pytest.approx(2 / 3)
    assert ranking.mrr(2) == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert ranking.ndcg(2) == pytest.approx((1 + 1 / math.log2(3) + 0) / 3)


def test_auc_of_a_user_is_the_share_of_negatives_below_the_target():
    assert rank_targets(SCORES, LABELS).auc_user() == pytest.approx((1 + 2 / 3 + 0) / 3)


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
    assert ranking.auc_user() == pytest.approx(0.5, abs=0.02)
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
