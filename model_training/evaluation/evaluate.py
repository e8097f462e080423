"""Step 8, `msr evaluate`: how well each model ranks the held-out target.

Every test user gives one ranking task of a protocol (`data/protocols.py`): the target and frozen
negatives, or the whole catalogue. The multimodal model scores the candidates through the engine and
the function that serve, from the preference written before the target. The cheap rankers, their
fusion and a random order rank the same tasks. An ablation (`score_tasks.py`) takes one input from
the multimodal model, to show how much it relies on it.

Cheap rankers and fusion are fitted here if they are missing, which takes minutes. A model that
needs more is left out, and "left_out" says why and what to run. If it was named by the user, that
is an error.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from model_training.data.inputs import Inputs, open_inputs
from model_training.data.protocols import Protocol, find_protocol
from model_training.data.ranking_tasks import (
    NUM_EVALUATION_NEGATIVES,
    RankingTask,
    load_ranking_tasks,
)
from model_training.evaluation.choose_models import choose_models
from model_training.evaluation.measure import (
    calibrate,
    calibration_of_fusion,
    compare_with_baselines,
    result_of_ranking,
    result_of_scores,
)
from model_training.evaluation.results import NEED_ENGINE, Evaluation, ModelResult
from model_training.evaluation.score_with_rankers import (
    FEATURE_OF,
    RANDOM,
    ScoreFeatures,
    rank_in_catalogue,
    score_at_random,
    score_features,
    scorer_of,
)
from model_training.evaluation.slices import slice_users
from model_training.rankers import fit_ranker, fit_retrieval
from model_training.rankers.task_features import read_features
from model_training.scoring.bootstrap import Bootstrap
from model_training.scoring.score_tasks import (
    USERS_PER_SHARD,
    Ablation,
    ScoringPlan,
    ScoringRequest,
    score_tasks,
)
from model_training.scoring.score_users import DEFAULT_CONCURRENCY
from services.core.artifacts import Artifact, absolute_root
from services.core.errors import ArtifactMissing, EmptyDataset
from services.core.scoring import Calibration
from services.engines.contract import Engine, EngineIdentity
from services.retrieval.cheap_rankers import CheapRankers
from services.retrieval.fusion import CHEAP, WITH_MARGIN, Ranker
from services.sharding.ray_workers import RayWorkers

MLLM = "mllm"
FUSIONS = (CHEAP, WITH_MARGIN)
_PACKAGES = ("numpy", "scikit-learn", "torch", "transformers", "peft")


@dataclass
class _Run:
    """The inputs of one evaluation and what it has found so far; `left_out` is model -> reason."""

    inputs: Inputs
    protocol: Protocol
    engine: Engine | RayWorkers | None
    models: list[str]
    required: bool
    left_out: dict[str, str]
    tasks: Sequence[RankingTask]
    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    num_shortened: int = 0

    def wants(self, *models: str) -> bool:
        return any(model in self.models for model in models)

    def omit(self, error: Exception, *models: str) -> None:
        """Go on without those of the models that are wanted; raise if the user named them."""
        for model in filter(self.wants, models):
            if self.required:
                raise error
            self.models.remove(model)
            self.left_out[model] = str(error)


async def run(
    data: str,
    engine: Engine | RayWorkers | None,
    *,
    protocol: str = "chrono-uniform",
    models: Sequence[str] | None = None,
    ablate: Ablation | None = None,
    concurrency: int = DEFAULT_CONCURRENCY,
    users_per_shard: int = USERS_PER_SHARD,
) -> Evaluation:
    """Evaluate these models, or all that the data and the engine allow, on all test users.

    With the multimodal model among them, the users are those that have a preference. Raises
    InputError for an unknown model, protocol or ablation or one that does not fit the others,
    ArtifactMissing for what a named model lacks, TargetLeak or ArtifactMismatch for preferences
    that do not fit, and the engine's own errors.
    """
    started = time.perf_counter()
    chosen, left_out = choose_models(
        data, protocol, models, ablate=ablate, has_engine=engine is not None
    )
    inputs, rules = open_inputs(data), find_protocol(protocol)
    frozen = load_ranking_tasks(inputs, rules)
    found = _Run(inputs, rules, engine, chosen, models is not None, left_out, frozen.tasks)
    _leave_out_unfitted(found)
    if engine is not None and found.wants(*NEED_ENGINE):
        request = ScoringRequest(
            data=absolute_root(data),
            identity=engine.identity,
            protocol=protocol,
            ablate=ablate,
            users_per_shard=users_per_shard,
            concurrency=concurrency,
        )
        try:
            plan = ScoringPlan.plan(request, inputs)
            found.tasks = plan.tasks
            found.scores[MLLM], found.num_shortened = await score_tasks(plan, engine)
        except EmptyDataset as error:  # no test user has a preference
            if ablate is not None:
                raise
            found.omit(error, *NEED_ENGINE)
    identity = None if engine is None else engine.identity
    served = {} if identity is None else {"model": identity.model, "adapter": identity.adapter}
    bootstrap = Bootstrap(len(found.tasks))
    results, calibration = _calibrate(found, await _measure(found, bootstrap))
    return Evaluation(
        protocol=protocol,
        users=tuple(task.user_id for task in found.tasks),
        negatives=frozen.fingerprint,
        ablate=ablate,
        models=results,
        slices=slice_users(inputs, rules, found.tasks),
        comparisons=compare_with_baselines(results, bootstrap),
        calibration=calibration,
        facts={
            "left_out": found.left_out,
            "users_without_task": frozen.num_refused,
            "users_without_preference": len(frozen.tasks) - len(found.tasks),
            "shortened": found.num_shortened,
            "data": {
                "users": inputs.interactions.counts["users"],
                "items": inputs.items.counts["items"],
                "interactions": inputs.interactions.counts["interactions"],
            },
            "fingerprints": found.fingerprints | inputs.fingerprints | served,
            "versions": {name: version(name) for name in _PACKAGES},
            "seconds": round(time.perf_counter() - started, 1),
        },
    )


# --- the cheap rankers and fusion ----------------------------------------------------------------


async def _measure(found: _Run, bootstrap: Bootstrap) -> dict[str, ModelResult]:
    """Results of all models, in the order of tables; the multimodal model's from its margins."""
    scorers: dict[str, ScoreFeatures] = {
        name: scorer_of(name) for name in found.models if name in FEATURE_OF
    }
    rankers = ranker = None
    if scorers or found.wants(*FUSIONS) or found.protocol.whole_catalogue:
        fit_retrieval.ensure(found.inputs.data, found.protocol.cut)
        rankers = CheapRankers.load(found.inputs.data, found.protocol.retrieval)
        found.fingerprints["retrieval"] = rankers.fingerprint
    if rankers is not None and found.wants(*FUSIONS):
        ranker = await _load_ranker(found, rankers)
        if found.wants(CHEAP):
            scorers[CHEAP] = ranker.cheap.logits
    if found.protocol.whole_catalogue:
        assert rankers is not None
        ranked = rank_in_catalogue(rankers, found.tasks, scorers)
        return {name: result_of_ranking(*ranked[name], bootstrap) for name in found.models}
    if rankers is not None:
        values = read_features(rankers, found.tasks)
        found.scores |= score_features(values, scorers)
        if ranker is not None and found.wants(WITH_MARGIN):
            assert ranker.with_margin is not None  # fitted with this engine's margins
            together = np.concatenate([values, found.scores[MLLM][:, :, None]], axis=2)
            logits = ranker.with_margin.logits
            found.scores |= score_features(together, {WITH_MARGIN: logits})
    found.scores[RANDOM] = score_at_random(len(found.tasks), len(found.tasks[0].candidates))
    return {name: result_of_scores(found.scores[name], bootstrap) for name in found.models}


def _leave_out_unfitted(found: _Run) -> None:
    """Leave out fusions that cannot be fitted, before the model scores anything."""
    if not found.wants(*FUSIONS):
        return
    inputs, protocol = found.inputs, found.protocol
    try:
        tasks = fit_ranker.load_tasks(inputs, protocol).tasks
    except EmptyDataset as error:
        found.omit(error, *FUSIONS)
        return
    if reason := fit_ranker.why_no_margin(inputs.data, protocol, tasks):
        missing = ArtifactMissing(
            f"the fusion of protocol {protocol.name} does not weigh the model's margin "
            f"({reason}); run `msr build-preferences` for validation users too"
        )
        found.omit(missing, WITH_MARGIN)


async def _load_ranker(found: _Run, rankers: CheapRankers) -> Ranker:
    """The fusion of the protocol, with the margins of this engine if they are wanted.

    It is fitted unless the one in service or that of an earlier evaluation is current. The one in
    service is never replaced: it may weigh the margins of another adapter.
    """
    data, protocol = found.inputs.data, found.protocol
    engine = found.engine if found.wants(WITH_MARGIN) else None
    identity = None if engine is None else engine.identity
    name = protocol.ranker
    if not _is_current(data, name, rankers, identity):
        name = protocol.evaluated_ranker
    if not _is_current(data, name, rankers, identity):
        await fit_ranker.run(data, engine, protocol=protocol.name, name=name)
    ranker = Ranker.load(data, name)
    ranker.require_retrieval(rankers.definition)
    found.fingerprints["ranker"] = ranker.fingerprint
    return ranker


def _is_current(
    data: str, name: str, rankers: CheapRankers, identity: EngineIdentity | None
) -> bool:
    """Whether the stored fusion was fitted on these rankers and on the margins of this engine.

    A fusion with margins is also current where none are wanted.
    """
    artifact = Artifact(data, name)
    if not artifact.exists():
        return False
    manifest = artifact.manifest()
    if rankers.fingerprint not in manifest.inputs.values():
        return False
    made_with = (manifest.model, manifest.definition.get("adapter"))
    return identity is None or made_with == (identity.model, identity.adapter)


# --- findings ------------------------------------------------------------------------------------


def _calibrate(
    found: _Run, results: Mapping[str, ModelResult]
) -> tuple[dict[str, ModelResult], dict[str, dict[str, float]]]:
    """The results, with probabilities where a model gives some, and their calibration."""
    calibrations: dict[str, Calibration] = {}
    if not found.protocol.whole_catalogue:
        calibrations |= dict.fromkeys(FUSIONS, calibration_of_fusion(NUM_EVALUATION_NEGATIVES))
        if found.engine is not None:
            calibrations[MLLM] = found.engine.identity.calibration
    enriched, measured = dict(results), {}
    for name, result in results.items():
        if name in calibrations:
            # One target among the negatives, unless the adapter was calibrated to another share.
            prior = calibrations[name].prior or 1 / (1 + NUM_EVALUATION_NEGATIVES)
            enriched[name], measured[name] = calibrate(result, calibrations[name], prior)
    return enriched, measured
