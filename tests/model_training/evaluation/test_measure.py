"""From scores to findings: intervals beside metrics, whom a model is compared with, calibration."""

import numpy as np
import pytest

from model_training.evaluation.measure import (
    calibrate,
    calibration_of_fusion,
    compare_with_baselines,
    result_of_scores,
)
from model_training.scoring.bootstrap import Bootstrap
from services.core.scoring import Calibration, yes_probability


def results(**strengths: float):
    """Models whose targets score so much higher than negatives, for 200 users."""
    noise = np.random.default_rng(0).normal(size=(200, 21))
    ahead = np.eye(21)[0]
    return {
        name: result_of_scores(noise + strength * ahead, Bootstrap(200))
        for name, strength in strengths.items()
    }


def test_every_metric_lies_in_its_interval():
    metrics = results(sasrec=1.5)["sasrec"].metrics

    names = [name for name in metrics if not name.endswith(("_low", "_high"))]
    assert len(names) == 11
    for name in names:
        assert metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]


def test_every_model_is_compared_with_the_best_baseline_but_itself():
    found = compare_with_baselines(results(popularity=0.5, sasrec=1.5, mllm=2.5), Bootstrap(200))

    against = {name: comparison["baseline"] for name, comparison in found.items()}
    assert against == {"popularity": "sasrec", "sasrec": "popularity", "mllm": "sasrec"}
    assert found["mllm"]["low"] > 0 > found["popularity"]["high"]
    assert found["mllm"]["p_value"] < 0.05


def test_the_multimodal_model_is_nobodys_baseline():
    found = compare_with_baselines(results(popularity=0.5, mllm=2.5), Bootstrap(200))

    assert set(found) == {"mllm"}


def test_probabilities_are_those_that_serving_gives():
    result = results(mllm=2.0)["mllm"]
    calibration = Calibration(0.7, -1.2)
    found, _ = calibrate(result, calibration, 1 / 21)

    margin = float(result.scores[3, 4])
    assert found.raw_probabilities[3, 4] == pytest.approx(yes_probability(margin))
    assert found.probabilities[3, 4] == pytest.approx(calibration.probability(margin))


def test_a_fusion_of_balanced_classes_is_moved_to_the_share_of_targets():
    # Log-odds that are right where every second candidate is a target: normal scores, 1 apart.
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(3000, 21)) - 0.5
    scores[:, 0] += 1
    calibration = calibration_of_fusion(20)
    result = result_of_scores(scores, Bootstrap(3000, num_resamples=10))
    _, found = calibrate(result, calibration, 1 / 21)

    assert found["ece_before"] > 0.3
    assert found["ece_after"] < 0.01
