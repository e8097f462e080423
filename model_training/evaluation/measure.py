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
from dataclasses import asdict, replace

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


def result_of_ranking(
    ranking: Ranking, sample: NDArray[np.float64], bootstrap: Bootstrap
) -> ModelResult:
    """All metrics of ranks, with their intervals.

    The pooled AUC, which needs scores, is that of `sample` (U, 1 + S): the scores of each target
    and of S other candidates.
    """
    per_user = ranking.per_user()
    means = {name: float(values.mean()) for name, values in per_user.items()}
    values = {"auc": metrics.auc(sample, first_column(sample)), **means}
    intervals = {"auc": bootstrap.auc_interval(sample), **bootstrap.intervals(per_user)}
    found: dict[str, float] = {}
    for name, value in values.items():
        low, high = intervals[name]
        found |= {name: value, f"{name}_low": low, f"{name}_high": high}
    num_candidates = np.broadcast_to(np.asarray(ranking.num_candidates), ranking.ranks.shape)
    return ModelResult(ranking.ranks, num_candidates, found)


def result_of_scores(scores: NDArray[np.float64], bootstrap: Bootstrap) -> ModelResult:
    """All metrics of scores (U, C), the target in the first column."""
    ranking = metrics.rank_targets(scores, first_column(scores))
    return replace(result_of_ranking(ranking, scores, bootstrap), scores=scores)


def calibration_of_fusion(num_negatives: int) -> Calibration:
    """Moves probabilities from balanced classes to one target among `num_negatives`."""
    return Calibration(intercept=-math.log(num_negatives))


def calibrate(
    result: ModelResult, calibration: Calibration, prior: float
) -> tuple[ModelResult, dict[str, float]]:
    """The result with the probabilities of its log-odds, and how well they are calibrated.

    The expected calibration errors, before and after, are those for a share `prior` of targets.
    """
    assert result.scores is not None
    labels = first_column(result.scores)
    raw = expit(result.scores)
    corrected = expit(calibration.slope * result.scores + calibration.intercept)
    return replace(result, raw_probabilities=raw, probabilities=corrected), {
        "ece_before": metrics.expected_calibration_error(raw, labels, prior=prior),
        "ece_after": metrics.expected_calibration_error(corrected, labels, prior=prior),
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
            **asdict(first),
            **{f"{ALSO_COMPARED}_{part}": value for part, value in asdict(second).items()},
        }
    return found
