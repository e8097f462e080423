"""The tables of `evaluate-microlens` and `evaluate-demo` judge what was measured, bar by bar."""

from typing import Any

import numpy as np
import pytest

from benchmarks.quality import evaluate_demo, evaluate_microlens
from model_training.evaluation.measure import result_of_ranking
from model_training.evaluation.results import Evaluation, ModelResult
from model_training.scoring.bootstrap import Bootstrap
from model_training.scoring.metrics import Ranking
from services.core.records import UserId

METRICS = ("auc", "hr@5", "mrr@5", "hr@10")


def metrics_of(value: float, **others: float) -> dict[str, float]:
    found = dict.fromkeys(METRICS, value) | others
    return {**found, **{f"{name}_{end}": value for name in METRICS for end in ("low", "high")}}


def uniform_figures(**fusion: float) -> dict[str, Any]:
    models = {
        "popularity": metrics_of(0.65),
        "item-knn": metrics_of(0.72),
        "tf-idf": metrics_of(0.60),
        "sasrec": metrics_of(0.95, fit_seconds=300.0),
        "fusion": metrics_of(0.95, **fusion),
    }
    return {"chrono-uniform": models}


def result(*ranks: int) -> ModelResult:
    sample = np.ones((len(ranks), 2))
    return result_of_ranking(Ranking(np.array(ranks), 21), sample, Bootstrap(len(ranks)))


def evaluation(ablate: str | None = None, **results: ModelResult) -> Evaluation:
    named = {name.replace("_", "-"): found for name, found in results.items()}
    users = tuple(UserId(f"u{number}") for number in range(4))
    calibration = {"mllm": {"ece_before": 0.2, "ece_after": 0.01}}
    return Evaluation("chrono-uniform", users, "frozen", ablate, named, calibration=calibration)


@pytest.fixture
def found() -> evaluate_demo._Found:
    shipped = evaluation(
        fusion=result(3, 2, 2, 1), mllm=result(1, 1, 0, 0), mllm_fusion=result(0, 0, 0, 0)
    )
    return evaluate_demo._Found(
        after_sft=evaluation(mllm=result(1, 2, 1, 0)),
        shipped=shipped,
        ablated=(evaluation("cover", mllm=result(9, 9, 9, 9)),),
    )


def test_microlens_bars_are_of_the_figures_beside_them():
    lines = evaluate_microlens.table(uniform_figures(auc=0.91)).splitlines()

    assert [line.split("|")[6].strip() for line in lines[2:12]] == [
        *("yes", "yes", "NO"),  # popularity, item-kNN and TF-IDF, each within 0.02
        *("yes", "yes", "yes"),  # SASRec
        *("NO", "yes", "yes"),  # fusion: AUC below 0.920
        "yes",  # seconds
    ]


def test_a_metric_is_shown_with_its_interval():
    assert "0.950 (0.950 to 0.950)" in evaluate_microlens.table(uniform_figures())


def test_the_demo_tells_what_each_part_adds(found: evaluate_demo._Found):
    models = evaluate_demo._figures(found)["chrono-uniform"]

    # Ranks 1, 1, 0, 0 against 1, 2, 1, 0: mean reciprocal ranks 3/4 and 7/12.
    assert models["mllm"]["gain_over_mllm-sft"] == pytest.approx(1 / 6)
    assert models["mllm-fusion"]["gain_over_mllm"] == pytest.approx(1 / 4)
    assert models["mllm"]["ece_after"] == 0.01


def test_an_ablation_stands_beside_its_protocol(found: evaluate_demo._Found):
    figures = evaluate_demo._figures(found)

    assert figures["chrono-uniform-ablate-cover"]["mllm"]["hr@10"] == 1.0


def test_a_stage_that_loses_misses_its_bar(found: evaluate_demo._Found):
    figures = evaluate_demo._figures(found)
    figures["chrono-uniform"]["mllm-sft"]["auc"] = 0.95
    figures["chrono-uniform"]["mllm"]["gain_over_mllm-sft"] = -0.01

    checks = {
        check[1:3]: check[-1] for check in evaluate_demo._check_bars(figures["chrono-uniform"])
    }
    assert checks["mllm-sft", "auc"]
    assert [
        held for (_, asked), held in checks.items() if asked.startswith("MRR@5 over mllm-sft")
    ] == [False]
