"""Ranking metrics over users: AUC, HR@k, MRR@k, NDCG@k.

Scores are an array (U, C): a row per user, a column per candidate; labels have its shape and hold
one 1 in each row, the target item. Ties are broken at random by a seeded generator, so that a
constant scorer gets what chance gives: neither the best rank nor the worst.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

DEFAULT_SEED = 2025


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Pooled AUC: a random target scores above a random negative, whoever they belong to.

    Any shape, any number of ones. A tie counts one half, which is what breaking it at random gives
    on average. ValueError unless both classes appear.
    """
    values, positive = np.asarray(scores, float).ravel(), np.asarray(labels).ravel() == 1
    if values.shape != positive.shape:
        raise ValueError(f"{values.size} scores do not fit {positive.size} labels")
    _require_finite(values)
    num_positive = int(positive.sum())
    num_negative = positive.size - num_positive
    if not num_positive or not num_negative:
        raise ValueError("AUC needs at least one positive and one negative label")
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last_ranks = np.cumsum(counts)
    mean_ranks = last_ranks - (counts - 1) / 2  # of each distinct value, from 1
    rank_sum = mean_ranks[which][positive].sum()
    wins = rank_sum - num_positive * (num_positive + 1) / 2
    return float(wins / (num_positive * num_negative))


@dataclass(frozen=True)
class Ranking:
    """Where each user's target came out, ties broken: `ranks` (U,); 0 is the top of C."""

    ranks: NDArray[np.int64]
    num_candidates: int

    def auc_user(self) -> float:
        """Mean over users of the share of negatives below the target."""
        return float(np.mean(1 - self.ranks / (self.num_candidates - 1)))

    def hr(self, k: int) -> float:
        """Share of users whose target is among the first k. ValueError if k exceeds C."""
        return float(np.mean(self._among(k)))

    def mrr(self, k: int) -> float:
        """Mean of 1 / position of the target, 0 beyond k. ValueError if k exceeds C."""
        return float(np.mean(np.where(self._among(k), 1 / (self.ranks + 1), 0)))

    def ndcg(self, k: int) -> float:
        """Mean of 1 / log2(1 + position) of the target, 0 beyond k. ValueError if k exceeds C."""
        return float(np.mean(np.where(self._among(k), 1 / np.log2(self.ranks + 2), 0)))

    def _among(self, k: int) -> NDArray[np.bool_]:
        if not 1 <= k <= self.num_candidates:
            raise ValueError(f"k must be in 1..{self.num_candidates}, not {k}")
        return np.asarray(self.ranks < k)


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
    lots = np.random.default_rng(seed).random(values.shape)
    target = targets == 1
    target_values, target_lots = values[target][:, None], lots[target][:, None]
    above = (values > target_values) | ((values == target_values) & (lots > target_lots))
    return Ranking(above.sum(axis=1), values.shape[1])


def _require_finite(values: NDArray[np.float64]) -> None:
    if not np.isfinite(values).all():
        raise ValueError("a score is not a finite number; the model behind it is broken")
