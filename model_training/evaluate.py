"""Step 6, `msr evaluate`: how well the target item is ranked among negative samples.

Every test user gives one ranking task: the target and the frozen negatives of a protocol. The
multimodal model scores them through the engine and the function that serve, from the preference
written before the target; popularity, item-kNN and random stand beside it on the same tasks.

Ablations ask what the model relies on:
    blank covers        every cover replaced by an empty one of the same size
    other preference    every user judged by the preference of some other user
    no adapter          open the engine without one
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from model_training import fit_retrieval, metrics
from model_training.negatives import Trial, load_trials
from model_training.score_groups import DEFAULT_CONCURRENCY
from model_training.score_trials import (
    SEED,
    USERS_PER_SHARD,
    ScoringRequest,
    plan_scoring,
    score_trials,
)
from services.core.artifacts import absolute_root
from services.core.errors import ArtifactMismatch, InputError
from services.engines.contract import Engine
from services.engines.ray_workers import RayWorkers
from services.retrieval.rankers import CheapRankers, CheapScores

MODELS = ("mllm", "popularity", "item-knn", "random")
CUTOFFS = (3, 5, 10)


async def run(
    data: str,
    engine: Engine | RayWorkers | None,
    *,
    protocol: str = "chrono-uniform",
    models: Sequence[str] = MODELS,
    blank_covers: bool = False,
    other_preference: bool = False,
    preferences: str = "preferences",
    concurrency: int = DEFAULT_CONCURRENCY,
    users_per_shard: int = USERS_PER_SHARD,
) -> dict[str, object]:
    """`{model: {"auc", "auc_user", "hr@5", "mrr@5", "ndcg@5", ...}, "users", "candidates", ...}`.

    With "mllm" among the models, the test users are those with a preference; without it all of
    them, and no engine is needed. Raises InputError for an unknown model or protocol, TargetLeak or
    ArtifactMismatch for preferences that do not fit, and the engine's own errors.
    """
    started = time.perf_counter()
    if unknown := [name for name in models if name not in MODELS]:
        raise InputError(f"there is no model {unknown[0]!r}; choose from {', '.join(MODELS)}")
    tasks = load_trials(data, protocol)
    trials: Sequence[Trial] = tasks.trials
    scores: dict[str, NDArray[np.float64]] = {}
    num_shortened = 0
    if "mllm" in models:
        if engine is None:
            raise InputError("scoring by the multimodal model needs an engine")
        plan = plan_scoring(
            ScoringRequest(
                data=absolute_root(data),
                identity=engine.identity,
                protocol=protocol,
                preferences=preferences,
                blank_covers=blank_covers,
                other_preference=other_preference,
                users_per_shard=users_per_shard,
                concurrency=concurrency,
            )
        )
        trials = plan.trials
        scores["mllm"], num_shortened = await score_trials(plan, engine)
    _require_one_user_a_row(trials)
    scores |= _score_cheaply(data, trials, models)
    return {
        **{name: _metrics(scores[name]) for name in models},
        "protocol": protocol,
        "users": len(trials),
        "candidates": len(trials[0].candidates),
        "negatives": tasks.fingerprint,
        "shortened": num_shortened,
        "seconds": round(time.perf_counter() - started, 1),
    }


def _require_one_user_a_row(trials: Sequence[Trial]) -> None:
    """Each row of scores is one user's, with the target once and first."""
    users = {trial.user_id for trial in trials}
    widths = {len(trial.candidates) for trial in trials}
    distinct = all(len(set(trial.candidates)) == len(trial.candidates) for trial in trials)
    if len(users) != len(trials) or len(widths) != 1 or not distinct:
        raise ArtifactMismatch(
            "the frozen negatives give a user two rows, rows of several lengths or a candidate "
            "twice; delete the folder of the negatives to draw them again"
        )


def _metrics(scores: NDArray[np.float64]) -> dict[str, float]:
    """All metrics of scores (U, C) whose first column is the target's."""
    labels = np.zeros(scores.shape, np.int64)
    labels[:, 0] = 1
    ranking = metrics.rank_targets(scores, labels)
    values = {"auc": metrics.auc(scores, labels), "auc_user": ranking.auc_user()}
    for k in CUTOFFS:
        values |= {
            f"hr@{k}": ranking.hr(k),
            f"mrr@{k}": ranking.mrr(k),
            f"ndcg@{k}": ranking.ndcg(k),
        }
    return {name: round(value, 4) for name, value in values.items()}


# --- the baselines -------------------------------------------------------------------------------


def _score_cheaply(
    data: str, trials: Sequence[Trial], models: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Scores (U, C) of the baselines among `models`."""
    scores: dict[str, NDArray[np.float64]] = {}
    readings: dict[str, Callable[[CheapScores], float]] = {
        "popularity": lambda candidate: candidate.popularity,
        "item-knn": lambda candidate: candidate.neighbors,
    }
    if wanted := [name for name in models if name in readings]:
        fit_retrieval.ensure(data)
        rankers = CheapRankers.load(data)
        rows = [rankers.score(trial.history, trial.candidates) for trial in trials]
        for name in wanted:
            scores[name] = np.array([[readings[name](found) for found in row] for row in rows])
    if "random" in models:
        shape = (len(trials), len(trials[0].candidates))
        scores["random"] = np.random.default_rng(SEED).random(shape)
    return scores
