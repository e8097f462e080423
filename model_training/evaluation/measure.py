"""Computes metrics with their intervals, paired tests, and calibration from scores.

A probability is calibrated to a share of targets. The adapter's P(Yes) is fitted on the examples of
validation users, so its share is one target to the number of uniform negatives there. A fusion is
fitted on balanced classes, as if every second candidate were a target. Subtracting log(negatives)
from its log-odds moves it to the share of the ranking tasks (King and Zeng, 2001); it gets no other
calibration. Each model is evaluated on test users at its own share
(`metrics.expected_calibration_error`).
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from model_training.evaluation.results import NEED_ENGINE, ModelResult
from model_training.scoring import metrics
from model_training.scoring.bootstrap import Bootstrap
from model_training.scoring.metrics import Ranking, first_column
from services.core.scoring import Calibration

# Models are compared by the rank of the target near the top, where a user sees it.
COMPARED = "mrr@5"
ALSO_COMPARED = "auc_user"


def result_of_ranking(ranking: Ranking, bootstrap: Bootstrap) -> ModelResult:
    """All metrics that need only ranks; the pooled AUC needs scores."""
    per_user = ranking.per_user()
    intervals = bootstrap.intervals(per_user)
    found: dict[str, float] = {}
    for name, values in per_user.items():
        found |= _with_interval(name, float(values.mean()), intervals[name])
    num_candidates = np.broadcast_to(np.asarray(ranking.num_candidates), ranking.ranks.shape)
    return ModelResult(ranking.ranks, num_candidates, found)


def result_in_catalogue(
    ranking: Ranking, sample: NDArray[np.float64], bootstrap: Bootstrap
) -> ModelResult:
    """All metrics of ranks in a whole catalogue.

    The pooled AUC is that of `sample` (U, 1 + S), the scores of each target and of S other items.
    """
    result = result_of_ranking(ranking, bootstrap)
    return replace(result, metrics=_pooled_auc(sample, bootstrap) | result.metrics)


def result_of_scores(scores: NDArray[np.float64], bootstrap: Bootstrap) -> ModelResult:
    """All metrics of scores (U, C), the target in the first column."""
    result = result_of_ranking(metrics.rank_targets(scores, first_column(scores)), bootstrap)
    pooled = _pooled_auc(scores, bootstrap)
    return replace(result, metrics=pooled | result.metrics, scores=scores)


def with_probabilities(result: ModelResult, calibration: Calibration) -> ModelResult:
    """The result with the probabilities of its log-odds before and after calibration."""
    assert result.scores is not None
    return replace(
        result,
        raw_probabilities=expit(result.scores),
        probabilities=expit(calibration.slope * result.scores + calibration.intercept),
    )


def calibration_of_fusion(num_negatives: int) -> Calibration:
    """Moves probabilities from balanced classes to one target among `num_negatives`."""
    return Calibration(intercept=-math.log(num_negatives))


def measure_calibration(
    result: ModelResult, calibration: Calibration, prior: float
) -> dict[str, float]:
    """Expected calibration error before and after, for a share `prior` of targets."""
    assert result.probabilities is not None
    assert result.raw_probabilities is not None
    labels = first_column(result.probabilities)

    def error(probabilities: NDArray[np.float64]) -> float:
        return metrics.expected_calibration_error(probabilities, labels, prior=prior)

    return {
        "ece_before": error(result.raw_probabilities),
        "ece_after": error(result.probabilities),
        "slope": calibration.slope,
        "intercept": calibration.intercept,
        "prior": prior,
    }


def compare_with_baselines(
    results: Mapping[str, ModelResult], bootstrap: Bootstrap
) -> dict[str, dict[str, float | str]]:
    """Each model against the best of the others that need no engine, by MRR@5, paired by user.

    "difference", "low", "high" and "p_value" are of that metric. Those of the AUC per user of the
    same two models begin with its name. A model without a baseline is left out.
    """
    per_user = {
        name: Ranking(result.ranks, result.num_candidates).per_user()
        for name, result in results.items()
    }
    found: dict[str, dict[str, float | str]] = {}
    for name, ours in per_user.items():
        others = [other for other in results if other != name and other not in NEED_ENGINE]
        if not others:
            continue
        baseline = max(others, key=lambda other: results[other].metrics[COMPARED])
        theirs = per_user[baseline]
        first = bootstrap.compare(ours[COMPARED], theirs[COMPARED])
        second = bootstrap.compare(ours[ALSO_COMPARED], theirs[ALSO_COMPARED])
        found[name] = {
            "baseline": baseline,
            "metric": COMPARED,
            "difference": first.difference,
            "low": first.low,
            "high": first.high,
            "p_value": first.p_value,
            f"{ALSO_COMPARED}_difference": second.difference,
            f"{ALSO_COMPARED}_low": second.low,
            f"{ALSO_COMPARED}_high": second.high,
            f"{ALSO_COMPARED}_p_value": second.p_value,
        }
    return found


def _pooled_auc(scores: NDArray[np.float64], bootstrap: Bootstrap) -> dict[str, float]:
    value = metrics.auc(scores, first_column(scores))
    return _with_interval("auc", value, bootstrap.auc_interval(scores))


def _with_interval(name: str, value: float, interval: tuple[float, float]) -> dict[str, float]:
    return {name: value, f"{name}_low": interval[0], f"{name}_high": interval[1]}
