"""Step 8, `msr evaluate`: how well the held-out target is ranked, by every model there is.

Every test user gives one ranking task of a protocol (`protocols.py`): the target and frozen
negatives, or the whole catalogue. The multimodal model scores them through the engine and the
function that serve, from the preference written before the target; the cheap rankers, their fusion
and chance stand beside it on the same tasks. Ablations (`score_tasks.py`) take one thing from the
multimodal model, to see what it relies on.

What is missing is made if that costs minutes (cheap rankers, fusion). What would cost more is left
out, and "left_out" says why and what to run; a model that was asked for by name is an error then.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from model_training.data.protocols import Protocol, find_protocol
from model_training.data.ranking_tasks import (
    NUM_EVALUATION_NEGATIVES,
    RankingTask,
    load_ranking_tasks,
)
from model_training.evaluation.measure import (
    calibration_of_fusion,
    compare_with_baselines,
    measure_calibration,
    result_in_catalogue,
    result_of_scores,
    with_probabilities,
)
from model_training.evaluation.results import MODELS, NEED_ENGINE, Evaluation, ModelResult
from model_training.evaluation.score_with_rankers import (
    FEATURE_OF,
    RANDOM,
    ScoreFeatures,
    rank_in_catalogue,
    read_features,
    score_at_random,
    score_features,
    scorer_of,
)
from model_training.evaluation.slices import slice_users
from model_training.rankers import fit_ranker, fit_retrieval
from model_training.scoring.bootstrap import Bootstrap
from model_training.scoring.score_tasks import (
    ABLATIONS,
    USERS_PER_SHARD,
    Ablation,
    ScoringRequest,
    plan_scoring,
    score_tasks,
)
from model_training.scoring.score_users import DEFAULT_CONCURRENCY
from services.core.artifacts import Artifact, absolute_root
from services.core.data_folder.steps import command_for
from services.core.errors import ArtifactMismatch, ArtifactMissing, EmptyDataset, InputError
from services.core.scoring import Calibration
from services.engines.contract import Engine, EngineIdentity
from services.retrieval.cheap_rankers import CheapRankers
from services.retrieval.fusion import CHEAP, WITH_MARGIN, Ranker
from services.sharding.ray_workers import RayWorkers

MLLM = "mllm"
_PACKAGES = ("numpy", "scikit-learn", "torch", "transformers", "peft")


@dataclass
class _Run:
    """What one evaluation has found so far; `left_out` is model -> reason."""

    data: str
    rules: Protocol
    models: list[str]
    required: bool
    left_out: dict[str, str]
    tasks: Sequence[RankingTask] = ()
    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    num_shortened: int = 0

    def wants(self, *models: str) -> bool:
        return any(model in self.models for model in models)

    def leave_out(self, model: str, error: Exception) -> None:
        """Go on without a model; if it was asked for by name its error is raised."""
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
    found = choose_models(data, protocol, models, ablate=ablate, has_engine=engine is not None)
    frozen = load_ranking_tasks(data, protocol)
    work = _Run(data, find_protocol(protocol), found[0], models is not None, found[1], frozen.tasks)
    _leave_out_unfitted(work)
    if engine is not None and work.wants(*NEED_ENGINE):
        try:
            await _ask_model(work, engine, ablate, concurrency, users_per_shard)
        except EmptyDataset as error:  # no test user has a preference
            if ablate is not None:
                raise
            for model in NEED_ENGINE:
                if work.wants(model):
                    work.leave_out(model, error)
    _require_one_user_a_row(work.tasks)
    bootstrap = Bootstrap(len(work.tasks))
    results = await _measure_cheaply(work, engine, bootstrap)
    results, calibration = _calibrate(work, results, engine)
    return Evaluation(
        protocol=protocol,
        users=tuple(task.user_id for task in work.tasks),
        negatives=frozen.fingerprint,
        ablate=ablate,
        models=results,
        slices=slice_users(data, work.rules, work.tasks),
        comparisons=compare_with_baselines(results, bootstrap),
        calibration=calibration,
        facts={
            "left_out": work.left_out,
            "users_without_task": frozen.num_refused,
            "users_without_preference": len(frozen.tasks) - len(work.tasks),
            "shortened": work.num_shortened,
            "data": _count_data(data),
            "fingerprints": work.fingerprints | _identify(data, engine),
            "versions": {name: version(name) for name in _PACKAGES},
            "seconds": round(time.perf_counter() - started, 1),
        },
    )


# --- which models --------------------------------------------------------------------------------


def choose_models(
    data: str,
    protocol: str,
    models: Sequence[str] | None = None,
    *,
    ablate: str | None = None,
    has_engine: bool = True,
) -> tuple[list[str], dict[str, str]]:
    """The models to evaluate, in the order of tables, and of the others why they are left out.

    `models` None: all that can be. An engine is needed if any of NEED_ENGINE is among them.
    Raises InputError for what cannot go together.
    """
    rules = find_protocol(protocol)
    if ablate is not None and ablate not in ABLATIONS:
        raise InputError(f"there is no ablation {ablate!r}; choose from {', '.join(ABLATIONS)}")
    if models is not None:
        if unknown := [name for name in models if name not in MODELS]:
            raise InputError(f"there is no model {unknown[0]!r}; choose from {', '.join(MODELS)}")
        if not models:
            raise InputError(f"there is no model to evaluate; choose from {', '.join(MODELS)}")
    refusal = _why_no_engine_models(data, rules, ablate, has_engine=has_engine)
    asked = [name for name in MODELS if models is None or name in models]
    needing = [name for name in asked if name in NEED_ENGINE]
    if ablate is not None and not needing:
        raise InputError(
            f"the ablation {ablate!r} takes something from the multimodal model, which is not "
            "among the models: add `mllm` to --models"
        )
    if refusal is None:
        return asked, {}
    if needing and (models is not None or ablate is not None):
        raise refusal
    return [name for name in asked if name not in needing], dict.fromkeys(needing, str(refusal))


def _why_no_engine_models(
    data: str, rules: Protocol, ablate: str | None, *, has_engine: bool
) -> Exception | None:
    if rules.whole_catalogue:
        return InputError(
            f"protocol {rules.name} ranks every item of the catalogue for every user, more than a "
            "multimodal model can score; choose a protocol with frozen negatives for it"
        )
    preferences = ScoringRequest(
        data, EngineIdentity("", ""), rules.name, ablate="direct" if ablate == "direct" else None
    ).preferences
    if not Artifact(data, preferences).exists():
        return ArtifactMissing(
            f"there are no preferences that were written before the targets of protocol "
            f"{rules.name} ({preferences}); run `msr {command_for(preferences)}`"
        )
    if not has_engine:
        return InputError("scoring by the multimodal model needs an engine; name one")
    return None


# --- the multimodal model ------------------------------------------------------------------------


async def _ask_model(
    work: _Run,
    engine: Engine | RayWorkers,
    ablate: Ablation | None,
    concurrency: int,
    users_per_shard: int,
) -> None:
    plan = plan_scoring(
        ScoringRequest(
            data=absolute_root(work.data),
            identity=engine.identity,
            protocol=work.rules.name,
            ablate=ablate,
            users_per_shard=users_per_shard,
            concurrency=concurrency,
        )
    )
    work.tasks = plan.tasks
    work.scores[MLLM], work.num_shortened = await score_tasks(plan, engine)


# --- the cheap rankers and fusion ----------------------------------------------------------------


async def _measure_cheaply(
    work: _Run, engine: Engine | RayWorkers | None, bootstrap: Bootstrap
) -> dict[str, ModelResult]:
    """Outcomes of all models, in the order of tables; of the multimodal one by its margins."""
    scorers: dict[str, ScoreFeatures] = {
        name: scorer_of(name) for name in work.models if name in FEATURE_OF
    }
    rankers = _load_rankers(work) if scorers or work.wants(CHEAP, WITH_MARGIN) else None
    ranker = None
    if rankers is not None and work.wants(CHEAP, WITH_MARGIN):
        ranker = await _load_ranker(work, rankers, engine)
        if work.wants(CHEAP):
            scorers[CHEAP] = ranker.cheap.logits
    if work.rules.whole_catalogue:
        if rankers is None:
            rankers = _load_rankers(work)
        found = rank_in_catalogue(rankers, work.tasks, scorers)
        return {name: result_in_catalogue(*found[name], bootstrap) for name in work.models}
    if rankers is not None:
        values = read_features(rankers, work.tasks)
        work.scores |= score_features(values, scorers)
        if ranker is not None and work.wants(WITH_MARGIN):
            assert ranker.with_margin is not None  # fitted with this engine's margins
            together = np.concatenate([values, work.scores[MLLM][:, :, None]], axis=2)
            logits = ranker.with_margin.logits
            work.scores |= score_features(together, {WITH_MARGIN: logits})
    work.scores[RANDOM] = score_at_random(len(work.tasks), len(work.tasks[0].candidates))
    return {name: result_of_scores(work.scores[name], bootstrap) for name in work.models}


def _leave_out_unfitted(work: _Run) -> None:
    """Leave the fusions out that have nobody to learn from: known before the model is asked."""
    if not work.wants(CHEAP, WITH_MARGIN):
        return
    try:
        frozen = fit_ranker.load_tasks(work.data, work.rules)
    except EmptyDataset as error:
        for model in (CHEAP, WITH_MARGIN):
            if work.wants(model):
                work.leave_out(model, error)
        return
    reason = fit_ranker.why_no_margin(work.data, work.rules, frozen.tasks)
    if work.wants(WITH_MARGIN) and reason is not None:
        work.leave_out(
            WITH_MARGIN,
            ArtifactMissing(
                f"the fusion of protocol {work.rules.name} does not weigh the model's margin "
                f"({reason}); run `msr build-preferences` for validation users too"
            ),
        )


def _load_rankers(work: _Run) -> CheapRankers:
    fit_retrieval.ensure(work.data, work.rules.cut)
    rankers = CheapRankers.load(work.data, work.rules.retrieval)
    work.fingerprints["retrieval"] = rankers.fingerprint
    return rankers


async def _load_ranker(
    work: _Run, rankers: CheapRankers, engine: Engine | RayWorkers | None
) -> Ranker:
    """The fusion of the protocol, with the margins of this engine if they are wanted; fitted, if
    neither the one that serves nor that of an earlier evaluation is current.

    What serves is never replaced by it: it would weigh the margins of another adapter.
    """
    data, rules = work.data, work.rules
    weighed_by = engine.identity if engine is not None and work.wants(WITH_MARGIN) else None
    name = rules.ranker
    if not _is_current(data, name, rankers, weighed_by):
        name = rules.evaluated_ranker
    if not _is_current(data, name, rankers, weighed_by):
        asked = engine if weighed_by is not None else None
        await fit_ranker.run(data, asked, protocol=rules.name, name=name)
    ranker = Ranker.load(data, name)
    ranker.require_retrieval(rankers.definition)
    work.fingerprints["ranker"] = ranker.fingerprint
    return ranker


def _is_current(
    data: str, name: str, rankers: CheapRankers, weighed_by: EngineIdentity | None
) -> bool:
    """Whether the fusion in the data folder is of these rankers, and of this engine's margins.

    One with margins also serves where none are wanted, and is not thrown away then.
    """
    artifact = Artifact(data, name)
    if not artifact.exists():
        return False
    manifest = artifact.manifest()
    if rankers.fingerprint not in manifest.inputs.values():
        return False
    if weighed_by is None:
        return True
    made_with = (manifest.model, manifest.definition.get("adapter"))
    return made_with == (weighed_by.model, weighed_by.adapter)


# --- findings ------------------------------------------------------------------------------------


def _calibrate(
    work: _Run, results: Mapping[str, ModelResult], engine: Engine | RayWorkers | None
) -> tuple[dict[str, ModelResult], dict[str, dict[str, float]]]:
    """The results with probabilities, where a model has some, and how well these come true."""
    calibrations: dict[str, Calibration] = {}
    if not work.rules.whole_catalogue:
        calibrations |= dict.fromkeys(
            (CHEAP, WITH_MARGIN), calibration_of_fusion(NUM_EVALUATION_NEGATIVES)
        )
        if engine is not None:
            calibrations[MLLM] = engine.identity.calibration
    enriched, measured = dict(results), {}
    for name, result in results.items():
        if name in calibrations:
            # One target among the negatives, unless the adapter was calibrated to another share.
            prior = calibrations[name].prior or 1 / (1 + NUM_EVALUATION_NEGATIVES)
            enriched[name] = with_probabilities(result, calibrations[name])
            measured[name] = measure_calibration(enriched[name], calibrations[name], prior)
    return enriched, measured


def _count_data(data: str) -> dict[str, int]:
    interactions, items = (
        Artifact(data, name).manifest().counts for name in ("interactions", "items")
    )
    return {
        "users": interactions["users"],
        "items": items["items"],
        "interactions": interactions["interactions"],
    }


def _identify(data: str, engine: Engine | RayWorkers | None) -> dict[str, str]:
    found = {
        name: Artifact(data, name).manifest().fingerprint for name in ("items", "interactions")
    }
    if engine is None:
        return found
    return found | {"model": engine.identity.model, "adapter": engine.identity.adapter}


def _require_one_user_a_row(tasks: Sequence[RankingTask]) -> None:
    """Each row of scores is one user's, with the target once and first."""
    users = {task.user_id for task in tasks}
    widths = {len(task.candidates) for task in tasks}
    distinct = all(len(set(task.candidates)) == len(task.candidates) for task in tasks)
    if len(users) != len(tasks) or len(widths) != 1 or not distinct:
        raise ArtifactMismatch(
            "the frozen negatives give a user two rows, rows of several lengths or a candidate "
            "twice; delete the folder of the negatives to draw them again"
        )
