"""Bootstrap intervals of metrics over users, and paired tests between models.

Users are drawn with replacement, seeded, and every metric and every model is measured on the same
draws. So differences between models are paired, and the variation between users cancels. A draw is
a weight per user (how often it was drawn), so no scores are sorted again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 1000
SEED = 2025
CONFIDENCE = 0.95

# Draws are made in portions of about this many numbers, so that memory does not grow with users.
_NUMBERS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Comparison:
    """The mean difference of two models over the same users, its interval and its p-value."""

    difference: float
    low: float
    high: float
    p_value: float


class Bootstrap:
    """Draws of `num_users` users; the same seed gives the same draws."""

    def __init__(
        self, num_users: int, *, num_resamples: int = NUM_RESAMPLES, seed: int = SEED
    ) -> None:
        """ValueError without users."""
        if num_users < 1:
            raise ValueError("there is no user to draw")
        self.num_users = num_users
        self.num_resamples = num_resamples
        self._seed = seed

    def intervals(
        self, values: Mapping[str, NDArray[np.float64]]
    ) -> dict[str, tuple[float, float]]:
        """The interval of the mean over users of each of these metrics (U,), by name."""
        means = self._means(np.stack(list(values.values()), axis=1))
        return {name: _interval(means[:, column]) for column, name in enumerate(values)}

    def auc_interval(self, scores: NDArray[np.float64]) -> tuple[float, float]:
        """The interval of the pooled AUC of scores (U, C), the target in the first column."""
        targets, negatives = scores[:, 0], scores[:, 1:].ravel()
        owners = np.repeat(np.arange(len(scores)), scores.shape[1] - 1)
        order = np.argsort(negatives, kind="stable")
        negatives, owners = negatives[order], owners[order]
        below = np.searchsorted(negatives, targets, "left")
        up_to = np.searchsorted(negatives, targets, "right")
        aucs = []
        for weights in self._draws(len(negatives)):
            # Weight of the negatives below each place in their order; a tie counts one half.
            mass = np.zeros((len(weights), len(negatives) + 1))
            np.cumsum(weights[:, owners], axis=1, out=mass[:, 1:])
            wins = (weights * (mass[:, below] + mass[:, up_to]) / 2).sum(axis=1)
            aucs.append(wins / (self.num_users * mass[:, -1]))
        return _interval(np.concatenate(aucs))

    def compare(self, ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Comparison:
        """The difference of a metric (U,) between two models, paired by user.

        The p-value is two-sided: twice the share of draws in which the difference is zero or has
        the other sign. It is never below 2 / (num_resamples + 1).
        """
        differences = self._means((ours - theirs)[:, None])[:, 0]
        low, high = _interval(differences)
        rarer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
        p_value = min(1.0, 2 * (rarer + 1) / (self.num_resamples + 1))
        return Comparison(float((ours - theirs).mean()), low, high, p_value)

    def _means(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Means of values (U, M) in every draw: (num_resamples, M)."""
        drawn = [weights @ values for weights in self._draws(self.num_users)]
        return np.concatenate(drawn) / self.num_users

    def _draws(self, width: int) -> Iterator[NDArray[np.float64]]:
        """All draws, some rows at a time, each a weight per user.

        `width` is how many numbers the caller keeps for a draw.
        """
        rng = np.random.default_rng(self._seed)
        portion = max(1, _NUMBERS_AT_ONCE // max(width, self.num_users))
        for start in range(0, self.num_resamples, portion):
            rows = min(portion, self.num_resamples - start)
            drawn = rng.integers(0, self.num_users, (rows, self.num_users))
            drawn += np.arange(rows)[:, None] * self.num_users
            counts = np.bincount(drawn.ravel(), minlength=rows * self.num_users)
            yield counts.reshape(rows, self.num_users).astype(np.float64)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [outside, 1 - outside])
    return float(low), float(high)
