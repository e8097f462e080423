"""For operators: health, progress, metrics and what runs here."""

import asyncio

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.api.dependencies import AppDependencies, Dependencies
from services.api.http.problems import documented
from services.api.monitoring.step_progress import read_steps
from services.api.route_guard import GuardedRoute, needs, open_to_all
from services.core import prompts, wire
from services.core.api_keys import Scope
from services.core.errors import StateError
from services.core.wire import console
from services.telemetry import build

router = APIRouter(tags=["operations"], route_class=GuardedRoute)


@router.get("/health/live", summary="Is the process alive", responses=documented())
@open_to_all
async def live() -> wire.Liveness:
    """Answers as long as the event loop runs; checks nothing else."""
    return wire.Liveness()


@router.get(
    "/health/ready",
    summary="Should requests be sent here",
    responses={
        503: {"model": wire.Readiness, "description": "Redis does not answer."},
        **documented(),
    },
)
@open_to_all
async def ready(deps: AppDependencies, response: Response) -> wire.Readiness:
    """The state of each component. Without Redis the status is 503. Without the model rankings are
    degraded but answered, so the status stays 200; so it does with texts that are not to be
    trusted. Refused new artifacts change nothing: the old ones stay in use.
    """
    redis, engine = await asyncio.gather(_redis_health(deps), _engine_health(deps))
    texts = _texts_health(deps)
    is_degraded = "degraded" in (engine.state, texts.state)
    status: wire.HealthState = "degraded" if is_degraded else "ok"
    status = "down" if redis.state == "down" else status
    response.status_code = 503 if status == "down" else 200
    return wire.Readiness(
        status=status,
        components={
            "redis": redis,
            "engine": engine,
            "artifacts": _artifacts_health(deps),
            "adapters": _adapters_health(deps),
            "texts": texts,
        },
    )


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}},
        **documented(),
    },
)
@needs(Scope.ADMIN, unless=lambda rules: rules.open_metrics)
async def metrics(deps: AppDependencies) -> Response:
    """Counts and times of this process."""
    return Response(generate_latest(deps.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/progress", summary="How far the work is", responses=documented())
@needs(Scope.READ)
async def progress(deps: AppDependencies) -> console.ProgressResponse:
    """The state of the offline steps in the data folder, and the waiting updates."""
    return console.ProgressResponse(
        steps=await asyncio.to_thread(read_steps, deps.data) if deps.data is not None else [],
        updates=console.UpdatesView.model_validate(deps.backlog.seen, from_attributes=True),
    )


@router.get("/version", summary="What runs here", responses=documented())
@open_to_all
async def read_version(deps: AppDependencies) -> wire.VersionResponse:
    """Code, prompts, weights and artifacts, each by version or fingerprint."""
    identity = deps.adapters.active.identity
    ordering = deps.live.by(identity)
    return wire.VersionResponse(
        version=build.version(),
        commit=build.commit(),
        prompts={
            "summary": prompts.SUMMARY_FINGERPRINT,
            "preference": prompts.PREFERENCE_FINGERPRINT,
            "scoring": prompts.SCORING_FINGERPRINT,
        },
        model=identity.model,
        model_name=deps.engine.identity.name,
        writer=deps.writers.preferences.identity if deps.writers.preferences else "",
        writer_name=deps.writers.preferences.name if deps.writers.preferences else "",
        adapter=identity.adapter,
        adapter_name=deps.adapters.choice.active.name if identity.adapter else "",
        retrieval=ordering.rankers.fingerprint,
        ranker=ordering.ranker.fingerprint if ordering.ranker is not None else "",
        cheap_order=ordering.cheap_order,
        final_order=ordering.final_order,
    )


async def _redis_health(deps: Dependencies) -> wire.ComponentHealth:
    try:
        await deps.store.ping()
    except StateError:
        return wire.ComponentHealth(state="down", detail="does not answer")
    return wire.ComponentHealth(state="ok", detail="answers")


def _artifacts_health(deps: Dependencies) -> wire.ComponentHealth:
    ordering = deps.live.current
    detail = f"retrieval {ordering.rankers.fingerprint}"
    if ordering.ranker is not None:
        detail += f", ranker {ordering.ranker.fingerprint}"
    if not deps.live.refusal:
        return wire.ComponentHealth(state="ok", detail=detail)
    kind = deps.live.refusal.split(":", 1)[0]
    return wire.ComponentHealth(state="degraded", detail=f"{detail}; newer ones refused ({kind})")


def _texts_health(deps: Dependencies) -> wire.ComponentHealth:
    """Degraded while the model's texts or scores are not to be taken at their word."""
    if sentences := deps.caveats.sentences.values():
        return wire.ComponentHealth(state="degraded", detail=". ".join(sentences))
    return wire.ComponentHealth(state="ok", detail=deps.caveats.describe())


def _adapters_health(deps: Dependencies) -> wire.ComponentHealth:
    """Degraded while this process cannot serve the chosen adapter."""
    active = deps.adapters.choice.active.name
    if not deps.adapters.problem:
        return wire.ComponentHealth(state="ok", detail=f"{active} is active")
    kind = deps.adapters.problem.split(":", 1)[0]
    return wire.ComponentHealth(
        state="degraded", detail=f"{active} stays active; the chosen adapter is refused ({kind})"
    )


async def _engine_health(deps: Dependencies) -> wire.ComponentHealth:
    error, name = await deps.engine_watch.look(), deps.engine.identity.name
    if error is None:
        return wire.ComponentHealth(state="ok", detail=f"{name} answers")
    return wire.ComponentHealth(
        state="degraded", detail=f"{name}: {type(error).__name__}; rankings are cheap"
    )
