"""Step 7, `msr fit-ranker`: the weights of fusion, learned from validation users alone.

Reads the cheap rankers, the validation users' frozen ranking tasks of a protocol and, if there are
preferences and an engine, the model's margins on them; writes `ranker`. Two logistic models over
standardized features: one without and one with the margin. Neither training users, whose own
interactions the rankers have seen, nor test users take part. The same data give the same weights.

Measured on MicroLens-50k: all users' candidates as rows of one regression, classes balanced
(test AUC 0.926, HR@5 0.875, MRR@5 0.660), did as well as a softmax within each user's candidates
(0.926, 0.873, 0.662); without balance 0.925, 0.872, 0.660; the strength of the penalty between 0.01
and 10 made no difference. Among all items (protocol `full`) the weights learned on uniform
negatives rank best too: HR@10 0.173, with hard negatives mixed in 0.171, on hard ones alone 0.02.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from model_training.data.inputs import Inputs, open_inputs
from model_training.data.protocols import SERVED, Protocol, find_protocol
from model_training.data.ranking_tasks import FrozenTasks, RankingTask, load_ranking_tasks
from model_training.rankers import fit_retrieval
from model_training.rankers.task_features import read_features
from model_training.scoring import metrics
from model_training.scoring.score_tasks import ScoringPlan, ScoringRequest, score_tasks
from services.core.artifacts import Artifact, Recipe, absolute_root
from services.core.errors import ArtifactMismatch, EmptyDataset
from services.engines.contract import Engine, EngineIdentity
from services.retrieval.cheap_rankers import CheapRankers
from services.retrieval.features import FEATURES, MARGIN
from services.retrieval.fusion import CHEAP, WITH_MARGIN, Fusion
from services.sharding.ray_workers import RayWorkers

RULES = 1  # raise it when this step decides something differently, so that artifacts are remade
PENALTY = 0.1  # scikit-learn's C
MIN_USERS = 2  # each half of them is ranked by what the other one gave
WEIGHED = "weighed"
METRICS = ("auc", "hr@5", "mrr@5")

_SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("users", pa.int64()),
        *((name, pa.float64()) for name in METRICS),
        ("features", pa.list_(pa.string())),
        ("means", pa.list_(pa.float64())),
        ("scales", pa.list_(pa.float64())),
        ("coefficients", pa.list_(pa.float64())),
        ("intercept", pa.float64()),
    ]
)


async def run(
    data: str,
    engine: Engine | RayWorkers | None = None,
    *,
    protocol: str = "chrono-uniform",
    retrieval: str | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Write the protocol's ranker (as `name`, if given); its coefficients, and how it ranks
    validation users.

    `validation` compares it with every feature alone: both halves of the users are ranked by the
    weights of the other half. `margin` says whether the model's margin is weighed, or why not.
    Raises EmptyDataset without validation users or negatives, ArtifactMismatch if `retrieval` (the
    protocol's, unless named) has seen the targets or gives a feature that is no number.
    """
    found = find_protocol(protocol)
    inputs = open_inputs(data)
    retrieval = retrieval or found.retrieval
    rankers = _load_rankers(inputs, retrieval, found)
    frozen = load_tasks(inputs, found)
    plan, margin = _plan_margins(inputs, engine, found, frozen.tasks)
    scores = {plan.request.artifact_name: plan.writer.recipe.fingerprint} if plan else {}
    recipe = Recipe(
        step="fit-ranker",
        definition={
            "rules": RULES,
            "protocol": protocol,
            "features": list(FEATURES),
            "method": "logistic regression, standardized features, balanced classes",
            "penalty": PENALTY,
            "fitted_on": "validation users",
            "retrieval": rankers.definition,
            "adapter": plan.request.identity.adapter if plan else "",
            "margin": margin,
        },
        model=plan.request.identity.model if plan else "",
        inputs={retrieval: rankers.fingerprint, "negatives": frozen.fingerprint, **scores},
    )
    artifact = Artifact(data, name or found.ranker)
    writer = artifact.write(recipe)
    if not writer.finished:
        rows = _fit_all(rankers, frozen.tasks)
        if plan is not None:
            assert engine is not None
            margins, _ = await score_tasks(plan, engine)
            rows += _fit_all(rankers, plan.tasks, margins)
        writer.write_shard(0, pa.Table.from_pylist(rows, _SCHEMA))
        counts = {"users": len(frozen.tasks), "users_with_margins": len(plan.tasks) if plan else 0}
        writer.finish(1, counts)
    return _summary(artifact)


async def ensure(
    data: str,
    engine: Engine | RayWorkers | None = None,
    *,
    protocol: str = "chrono-uniform",
    serving: EngineIdentity | None = None,
) -> None:
    """Fit the protocol's cheap rankers and their fusion, unless there are some that still fit.

    Without an engine, weights that know margins are kept; with `serving` only those that know the
    margins of what will serve.
    """
    found = find_protocol(protocol)
    fit_retrieval.ensure(data, found.cut)
    if engine is not None or not _is_current(data, found, serving):
        await run(data, engine, protocol=protocol)


def _is_current(data: str, protocol: Protocol, serving: EngineIdentity | None) -> bool:
    artifact = Artifact(data, protocol.ranker)
    if not artifact.exists():
        return False
    manifest = artifact.manifest()
    rankers = Artifact(data, protocol.retrieval).manifest().fingerprint
    definition = {"rules": RULES, "features": list(FEATURES), "penalty": PENALTY}
    if not manifest.definition.keys() >= {"retrieval", "adapter", "margin"}:
        return False
    if manifest.inputs.get(protocol.retrieval) != rankers or any(
        manifest.definition.get(name) != value for name, value in definition.items()
    ):
        return False
    if serving is None or manifest.definition["margin"] != WEIGHED:
        return True
    return (manifest.model, manifest.definition["adapter"]) == (serving.model, serving.adapter)


def can_weigh_margins(data: str, protocol: str = "chrono-uniform") -> bool:
    """Whether an engine is of use: there are preferences of enough validation users."""
    found = find_protocol(protocol)
    return why_no_margin(data, found, load_tasks(open_inputs(data), found).tasks) is None


# --- what is read --------------------------------------------------------------------------------


def _load_rankers(inputs: Inputs, name: str, protocol: Protocol) -> CheapRankers:
    manifest = Artifact(inputs.data, name).manifest()
    cut = manifest.definition.get("cut")
    if cut != protocol.cut:
        raise ArtifactMismatch(
            f"protocol {protocol.name} holds its targets out by the cut {protocol.cut!r}, but "
            f"{name} was fitted with the cut {cut!r} and may have seen them; use the rankers of "
            f"`msr fit-retrieval --cut {protocol.cut}`"
        )
    # Rankers of other interactions may have seen what is a target now.
    inputs.require_same_inputs(manifest)
    return CheapRankers.load(inputs.data, name)


def load_tasks(inputs: Inputs, protocol: Protocol) -> FrozenTasks:
    """The validation users' ranking tasks; EmptyDataset if fusion cannot learn from them."""
    # Among all items most rivals of a target are random items, as uniform negatives are.
    drawn_by = find_protocol(SERVED) if protocol.whole_catalogue else protocol
    frozen = load_ranking_tasks(inputs, drawn_by, "validation")
    if len(frozen.tasks) < MIN_USERS:
        raise EmptyDataset(
            f"{inputs.data} has {len(frozen.tasks)} validation user(s) with a ranking task; "
            f"fusion learns from {MIN_USERS} at least: prepare more users"
        )
    if not all(task.negatives for task in frozen.tasks):
        raise EmptyDataset(
            f"protocol {protocol.name} gives a validation user no negative samples: one class "
            "never appears; prepare a larger catalogue"
        )
    return frozen


def why_no_margin(data: str, protocol: Protocol, tasks: Sequence[RankingTask]) -> str | None:
    """Why margins of these validation users cannot be had; None if they can."""
    if protocol.whole_catalogue:
        return "no margins of a whole catalogue"
    preferences = Artifact(data, _request(data, protocol, EngineIdentity("", "")).preferences)
    if not preferences.exists():
        return "no preferences"
    written = set(preferences.read(["user_id"])["user_id"].to_pylist())
    if sum(task.user_id in written for task in tasks) < MIN_USERS:
        return f"preferences of fewer than {MIN_USERS} validation users"
    return None


def _plan_margins(
    inputs: Inputs,
    engine: Engine | RayWorkers | None,
    protocol: Protocol,
    tasks: Sequence[RankingTask],
) -> tuple[ScoringPlan | None, str]:
    """How margins are to be got, and in words whether they are weighed."""
    if engine is None:
        return None, why_no_margin(inputs.data, protocol, tasks) or "no model"
    missing = why_no_margin(inputs.data, protocol, tasks)
    if missing is not None:
        return None, missing
    return ScoringPlan.plan(_request(inputs.data, protocol, engine.identity), inputs), WEIGHED


def _request(data: str, protocol: Protocol, identity: EngineIdentity) -> ScoringRequest:
    return ScoringRequest(absolute_root(data), identity, protocol.name, split="validation")


# --- fitting -------------------------------------------------------------------------------------


def _fit_all(
    rankers: CheapRankers, tasks: Sequence[RankingTask], margins: NDArray[np.float64] | None = None
) -> list[dict[str, Any]]:
    """Rows of the artifact: fusion, and beside it each feature alone on the same users.

    With margins (U, C): the fusion with the margin, and the margin alone.
    """
    values = read_features(rankers, tasks)
    features: tuple[str, ...]
    if margins is None:
        alone = {feature: values[:, :, column] for column, feature in enumerate(FEATURES)}
        model, features = CHEAP, FEATURES
    else:
        alone = {MARGIN: margins}
        model, features = WITH_MARGIN, (*FEATURES, MARGIN)
        values = np.concatenate([values, margins[:, :, None]], axis=2)
    fusion = fit(values, features)
    fitted = {
        "features": list(fusion.features),
        "means": list(fusion.means),
        "scales": list(fusion.scales),
        "coefficients": list(fusion.coefficients),
        "intercept": fusion.intercept,
    }
    rows = [{"model": model, **_measure(_cross_fitted(values, features)), **fitted}]
    return rows + [{"model": name, **_measure(scores)} for name, scores in alone.items()]


def fit(values: NDArray[np.float64], features: tuple[str, ...]) -> Fusion:
    """The logistic model over `values` (U, C, F), the target first among each user's candidates.

    A feature that is the same for all candidates gets no weight.
    """
    num_users, num_candidates, num_features = values.shape
    rows = values.reshape(-1, num_features)
    labels = np.tile(np.arange(num_candidates) == 0, num_users)
    means, scales = rows.mean(axis=0), rows.std(axis=0)
    scales[scales < 1e-9 * np.maximum(1.0, np.abs(means))] = 1.0
    model = LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=2000)
    model.fit((rows - means) / scales, labels)
    return Fusion(
        features=features,
        means=tuple(means.tolist()),
        scales=tuple(scales.tolist()),
        coefficients=tuple(model.coef_[0].tolist()),
        intercept=float(model.intercept_[0]),
    )


def _cross_fitted(values: NDArray[np.float64], features: tuple[str, ...]) -> NDArray[np.float64]:
    """Scores (U, C) of every user by weights that the other half of the users gave."""
    scores = np.empty(values.shape[:2])
    for half in (0, 1):
        fusion = fit(values[1 - half :: 2], features)
        scores[half::2] = [fusion.logits(candidates) for candidates in values[half::2]]
    return scores


def _measure(scores: NDArray[np.float64]) -> dict[str, Any]:
    """METRICS of scores (U, C), the target's in the first column."""
    labels = metrics.first_column(scores)
    ranking = metrics.rank_targets(scores, labels)
    top = min(5, scores.shape[1])
    found = (metrics.auc(scores, labels), ranking.hr(top), ranking.mrr(top))
    return {"users": len(scores), **dict(zip(METRICS, found, strict=True))}


# --- the summary --------------------------------------------------------------------------------


def _summary(artifact: Artifact) -> dict[str, Any]:
    manifest = artifact.manifest()
    rows = artifact.read().to_pylist()
    return {
        "protocol": manifest.definition["protocol"],
        **manifest.counts,
        "margin": manifest.definition["margin"],
        "coefficients": {
            row["model"]: _rounded(zip(row["features"], row["coefficients"], strict=True))
            for row in rows
            if row["features"]
        },
        "validation": {
            row["model"]: _rounded((name, row[name]) for name in METRICS) for row in rows
        },
    }


def _rounded(values: Any) -> Mapping[str, float]:
    return {name: round(value, 4) if math.isfinite(value) else value for name, value in values}
