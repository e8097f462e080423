"""Ranking metrics over users (AUC, HR@k, MRR@k, NDCG@k) and calibration of probabilities.

Scores are an array (U, C): a row per user, a column per candidate. Labels have its shape and one 1
in each row, the target item. Ties are broken at random by a seeded generator, so that a constant
scorer is at the level of chance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_auc_score

DEFAULT_SEED = 2025
CUTOFFS = (3, 5, 10)
NUM_BINS = 15


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Pooled AUC: how often a random target scores above a random negative, over all users.

    Any shape, any number of ones. A tie counts one half. ValueError unless both classes appear.
    """
    values, positive = np.asarray(scores, float).ravel(), np.asarray(labels).ravel() == 1
    if values.shape != positive.shape:
        raise ValueError(f"{values.size} scores do not fit {positive.size} labels")
    _require_finite(values)
    if positive.all() or not positive.any():
        raise ValueError("AUC needs at least one positive and one negative label")
    return float(roc_auc_score(positive, values))


@dataclass(frozen=True)
class Ranking:
    """The rank of each user's target, ties broken: `ranks` (U,), from 0.

    `num_candidates` is the number of candidates, of each user (U,) or of all.
    """

    ranks: NDArray[np.int64]
    num_candidates: NDArray[np.int64] | int

    def hr(self, k: int) -> float:
        """Share of users whose target is among the first k. ValueError if k exceeds C."""
        return float(self.at(k)[f"hr@{k}"].mean())

    def mrr(self, k: int) -> float:
        """Mean of 1 / position of the target, 0 beyond k. ValueError if k exceeds C."""
        return float(self.at(k)[f"mrr@{k}"].mean())

    def at(self, k: int) -> dict[str, NDArray[np.float64]]:
        """Hit, 1 / position and 1 / log2(1 + position) of every target (U,), 0 beyond k.

        By the names of their means: HR, MRR and NDCG. ValueError if k exceeds C.
        """
        fewest = int(np.min(self.num_candidates))
        if not 1 <= k <= fewest:
            raise ValueError(f"k must be in 1..{fewest}, not {k}")
        among = self.ranks < k
        return {
            f"hr@{k}": among.astype(np.float64),
            f"mrr@{k}": np.where(among, 1 / (self.ranks + 1), 0),
            f"ndcg@{k}": np.where(among, 1 / np.log2(self.ranks + 2), 0),
        }

    def per_user(self) -> dict[str, NDArray[np.float64]]:
        """Every metric of every user (U,), by name; their means are the metrics.

        "auc_user" is the share of negatives below the target.
        """
        below = 1 - self.ranks / (np.asarray(self.num_candidates) - 1)
        values: dict[str, NDArray[np.float64]] = {"auc_user": np.asarray(below, np.float64)}
        for k in CUTOFFS:
            if k <= np.min(self.num_candidates):
                values |= self.at(k)
        return values


def rank_targets(scores: ArrayLike, labels: ArrayLike, *, seed: int = DEFAULT_SEED) -> Ranking:
    """Rank every user's candidates, best first; ValueError for shapes or labels that do not fit."""
    values, targets = np.asarray(scores, float), np.asarray(labels)
    if values.ndim != 2 or values.shape != targets.shape:
        raise ValueError(f"scores {values.shape} and labels {targets.shape} must both be (U, C)")
    if values.shape[0] < 1 or values.shape[1] < 2:
        raise ValueError(f"{values.shape} holds no user with a target and a negative sample")
    if not np.isin(targets, (0, 1)).all() or not (targets.sum(axis=1) == 1).all():
        raise ValueError("every user needs exactly one label 1, the target, and 0 elsewhere")
    _require_finite(values)
    ties = np.random.default_rng(seed).random(values.shape)
    target = targets == 1
    target_values, target_ties = values[target][:, None], ties[target][:, None]
    above = (values > target_values) | ((values == target_values) & (ties > target_ties))
    return Ranking(above.sum(axis=1), values.shape[1])


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, *, prior: float | None = None
) -> float:
    """Mean gap between the predicted and the observed share of ones, over 15 bins of equal mass.

    Any shape. `prior` is the share of ones that the probabilities are calibrated to: rows are
    weighted so that the ones have that share (None: no weights). A probability that is right where
    one row in five is a target cannot be right where one in twenty-one is. Equal probabilities are
    always in one bin, so the order of rows does not matter. ValueError for values outside [0, 1],
    or unless both classes appear.
    """
    values, positive = np.asarray(probabilities, float).ravel(), np.asarray(labels).ravel() == 1
    if values.shape != positive.shape:
        raise ValueError(f"{values.size} probabilities do not fit {positive.size} labels")
    _require_finite(values)
    if values.size and (values.min() < 0 or values.max() > 1):
        raise ValueError("a probability lies outside [0, 1]")
    share = float(positive.mean()) if values.size else 0.0
    if not 0 < share < 1:
        raise ValueError("calibration needs at least one positive and one negative label")
    wanted = share if prior is None else prior
    if not 0 < wanted < 1:
        raise ValueError(f"the share of ones must lie between 0 and 1, not be {wanted}")
    weights = np.where(positive, wanted / share, (1 - wanted) / (1 - share)) / values.size
    _, which = np.unique(values, return_inverse=True)
    mass = np.bincount(which, weights)
    middles = np.cumsum(mass) - mass / 2  # of each distinct value, in (0, 1)
    bins = np.minimum((middles * NUM_BINS).astype(int), NUM_BINS - 1)[which]
    predicted = np.bincount(bins, weights * values, NUM_BINS)
    observed = np.bincount(bins, weights * positive, NUM_BINS)
    return float(np.abs(predicted - observed).sum())


def first_column(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Labels of scores (U, C) whose target is in the first column: their shape."""
    labels = np.zeros(scores.shape, bool)
    labels[:, 0] = True
    return labels


def _require_finite(values: NDArray[np.float64]) -> None:
    if not np.isfinite(values).all():
        raise ValueError("a score is not a finite number; the model behind it is broken")
