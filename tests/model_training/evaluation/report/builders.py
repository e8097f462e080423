"""Evaluations out of nothing: seeded scores of models that are good to a given degree."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from model_training.evaluation.results import Evaluation, ModelResult, Slice
from model_training.scoring.metrics import auc, rank_targets

# How far each model's targets stand above its negatives, in standard deviations.
STRENGTHS = {
    "random": 0.0,
    "popularity": 0.5,
    "trending": 1.0,
    "item-knn": 0.8,
    "tf-idf": 0.6,
    "sasrec": 1.8,
    "fusion": 2.0,
    "mllm": 0.9,
    "mllm-fusion": 2.2,
}


def an_evaluation(
    protocol: str = "chrono-uniform",
    *,
    models: Sequence[str] = tuple(STRENGTHS),
    num_users: int = 300,
    p_value: float = 0.002,
    difference: float = 0.041,
    ablate: str | None = None,
    facts: Mapping[str, Any] | None = None,
    slices: Mapping[str, Sequence[Slice]] | None = None,
) -> Evaluation:
    """The models on one candidate set; with mllm there are probabilities, with two a comparison."""
    rng = np.random.default_rng(5)
    results = {
        name: a_result(rng, STRENGTHS.get(name, 1.0), num_users, name.startswith("mllm"))
        for name in models
    }
    if protocol == "full":
        results = {name: of_catalogue(rng, result) for name, result in results.items()}
    baseline = [name for name in models if not name.startswith("mllm")][-1:]
    compared = [name for name in models[-2:] if baseline and name not in baseline]
    return Evaluation(
        protocol=protocol,
        users=tuple(f"u{number}" for number in range(num_users)),
        negatives="3f2a90c1d4e5",
        ablate=ablate,
        models=results,
        slices=some_slices(rng, num_users) if slices is None else slices,
        comparisons={name: a_comparison(baseline[0], difference, p_value) for name in compared},
        calibration={
            name: {"ece_before": 0.21, "ece_after": 0.03, "slope": 0.7, "intercept": -1.1}
            for name in models
            if name == "mllm"
        },
        facts={"data": {"users": 14323, "items": 9535}, "seconds": 3.5, **(facts or {})},
    )


def a_result(
    rng: np.random.Generator, strength: float, num_users: int, probable: bool
) -> ModelResult:
    scores = rng.normal(size=(num_users, 21))
    scores[:, 0] += strength
    labels = np.zeros(scores.shape, int)
    labels[:, 0] = 1
    ranking = rank_targets(scores, labels)
    means = {name: float(np.mean(values)) for name, values in ranking.per_user().items()}
    return ModelResult(
        ranks=ranking.ranks,
        num_candidates=np.full(num_users, 21),
        metrics=with_intervals({"auc": auc(scores, labels), **means}),
        scores=scores,
        probabilities=1 / (1 + np.exp(3.5 - 1.2 * scores)) if probable else None,
        raw_probabilities=1 / (1 + np.exp(1 - 2 * scores)) if probable else None,
    )


def of_catalogue(rng: np.random.Generator, result: ModelResult) -> ModelResult:
    """The same among 9,000 candidates: ranks without scores, and no pooled AUC."""
    ranks = np.minimum(result.ranks**3 + rng.integers(0, 20, result.ranks.size), 8999)
    pooled = ("auc", "auc_low", "auc_high")
    metrics = {name: value for name, value in result.metrics.items() if name not in pooled}
    for k in (3, 5, 10):
        hits = float(np.mean(ranks < k))
        metrics |= with_intervals({f"hr@{k}": hits})
    return ModelResult(ranks, np.full(ranks.size, 9000), metrics)


def with_intervals(values: Mapping[str, float]) -> dict[str, float]:
    found = {}
    for name, value in values.items():
        found |= {name: value, f"{name}_low": value - 0.02, f"{name}_high": value + 0.02}
    return found


def a_comparison(baseline: str, difference: float, p_value: float) -> dict[str, float | str]:
    ends = {"difference": difference, "low": 0.012, "high": 0.07, "p_value": p_value}
    return {"baseline": baseline, "metric": "mrr@5", **ends}


def some_slices(rng: np.random.Generator, num_users: int) -> dict[str, Sequence[Slice]]:
    lengths = rng.integers(1, 30, num_users)
    groups = (("1-5", lengths <= 5), ("6-20", (lengths > 5) & (lengths <= 20)))
    cold = a_slice("cold items", "new", num_users=num_users)
    return {"history length": (*groups, ("21+", lengths > 20)), **cold}


def a_slice(name: str, group: str, *, num_users: int = 300) -> dict[str, Sequence[Slice]]:
    """Two groups of users: the first seven, and all others."""
    inside = np.arange(num_users) < 7
    return {name: ((group, inside), ("known", ~inside))}


def renamed(evaluation: Evaluation, model: str, name: str) -> Evaluation:
    """The same, with another name for one model."""
    results = {name if old == model else old: found for old, found in evaluation.models.items()}
    return replace(evaluation, models=results)
