"""Calibration: turns an adapter's margins into probabilities.

Platt's correction is a slope and an intercept. It is fitted on validation users after training and
stored in the adapter's manifest, where every engine reads it. It changes no order. P(Yes) is then
the share of targets among rows of this margin, at the prior of the examples: one target among its
uniform negatives.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit

from model_training.scoring.metrics import expected_calibration_error
from services.core.errors import EmptyDataset, ModelUnusable
from services.core.scoring import Calibration


def fit(margins: ArrayLike, labels: ArrayLike) -> Calibration:
    """Slope and intercept of greatest likelihood; margins and labels (N,), labels 0 or 1.

    Raises EmptyDataset unless both classes appear, ModelUnusable if the slope is not above 0. Then
    the adapter ranks targets below negatives, and no correction that keeps the order can help.
    """
    slope, intercept = _platt(margins, labels)
    if not slope > 0:
        raise ModelUnusable(
            f"on validation users the adapter's margins are lower for targets (slope {slope:.3g}):"
            " it is no better than chance; train it longer or with a lower learning_rate"
        )
    return Calibration(slope, intercept)


def measure(
    margins: ArrayLike, labels: ArrayLike, user_ids: Sequence[Hashable]
) -> dict[str, float]:
    """The calibration as an adapter's manifest holds it, with its effect on users not fitted on.

    All arguments (N,). `slope` and `intercept` are `fit` on all rows, `prior` their share of
    targets. `ece_before` is the expected calibration error without correction; for `ece_after` each
    half of the users is corrected by a fit on the other half. Raises EmptyDataset for fewer than
    two users, and as `fit`.
    """
    calibration = fit(margins, labels)
    values, positive = np.asarray(margins, float), np.asarray(labels, float)
    numbers = {user_id: number for number, user_id in enumerate(dict.fromkeys(user_ids))}
    if len(numbers) < 2:
        raise EmptyDataset(
            "calibration needs at least two validation users; build preferences for more users"
        )
    odd = np.array([numbers[user_id] % 2 == 1 for user_id in user_ids])
    corrected = np.empty_like(values)
    for fitted_on, applied_to in ((odd, ~odd), (~odd, odd)):
        slope, intercept = _platt(values[fitted_on], positive[fitted_on])
        corrected[applied_to] = expit(slope * values[applied_to] + intercept)
    return {
        "slope": calibration.slope,
        "intercept": calibration.intercept,
        "prior": float(positive.mean()),
        "ece_before": expected_calibration_error(expit(values), positive),
        "ece_after": expected_calibration_error(corrected, positive),
    }


def _platt(margins: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    values, positive = np.asarray(margins, float), np.asarray(labels, float)
    if values.ndim != 1 or values.shape != positive.shape:
        raise ValueError(f"margins {values.shape} and labels {positive.shape} must both be (N,)")
    if not np.isfinite(values).all():
        raise ValueError("a margin is not a finite number; the model behind it is broken")
    if len(set(positive.tolist())) < 2:
        raise EmptyDataset(
            "calibration needs targets and negatives among the validation rows; build preferences "
            "for more users"
        )
    # Labels moved inwards from 0 and 1 (Platt, 1999), so that separable rows do not give an
    # infinite slope.
    num_positive = positive.sum()
    num_negative = positive.size - num_positive
    wanted = np.where(
        positive == 1, (num_positive + 1) / (num_positive + 2), 1 / (num_negative + 2)
    )
    spread = values.std() or 1.0
    scaled = (values - values.mean()) / spread

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = parameters[0] * scaled + parameters[1]
        excess = expit(logits) - wanted
        mean = float(np.mean(np.logaddexp(0, logits) - wanted * logits))
        return mean, np.array([np.mean(excess * scaled), np.mean(excess)])

    start = np.array([0.0, np.log((num_positive + 1) / (num_negative + 1))])
    slope, intercept = minimize(loss, start, jac=True, method="BFGS", tol=1e-9).x
    return float(slope / spread), float(intercept - slope * values.mean() / spread)
