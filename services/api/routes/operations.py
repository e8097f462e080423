"""For operators: health, progress, metrics and what runs here."""

import asyncio

from fastapi import APIRouter, Response

from services.api.dependencies import AppParts, Parts
from services.api.http.problems import documented
from services.api.monitoring.step_progress import read_steps
from services.api.route_guard import GuardedRoute, needs, open_to_all
from services.core import prompts, wire
from services.core.api_keys import Scope
from services.core.errors import StateError
from services.core.wire import console
from services.telemetry import build
from services.telemetry.registry import CONTENT_TYPE

router = APIRouter(tags=["operations"], route_class=GuardedRoute)


@router.get("/health/live", summary="Is the process alive", responses=documented())
@open_to_all
async def live() -> wire.Liveness:
    """Answers as long as the event loop turns; looks at nothing else."""
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
async def ready(parts: AppParts, response: Response) -> wire.Readiness:
    """The state of each part. Without Redis nothing can be answered (503); without the model
    rankings are degraded but answered, so the status stays 200. Newly published artifacts that are
    refused degrade nothing: those before them keep serving.
    """
    redis, engine = await asyncio.gather(_redis_health(parts), _engine_health(parts))
    status = "down" if redis.state == "down" else engine.state
    response.status_code = 503 if status == "down" else 200
    return wire.Readiness(
        status=status,
        parts={
            "redis": redis,
            "engine": engine,
            "artifacts": _artifacts_health(parts),
            "adapters": _adapters_health(parts),
        },
    )


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {CONTENT_TYPE: {"schema": {"type": "string"}}}},
        **documented(),
    },
)
@needs(Scope.ADMIN, unless=lambda rules: rules.open_metrics)
async def metrics(parts: AppParts) -> Response:
    """Counts and times of this process."""
    return Response(parts.metrics.render(), media_type=CONTENT_TYPE)


@router.get("/progress", summary="How far the work is", responses=documented())
@needs(Scope.READ)
async def progress(parts: AppParts) -> console.ProgressResponse:
    """The offline steps, by what lies in the data folder, and the folds that wait."""
    folds = parts.backlog.seen
    return console.ProgressResponse(
        steps=await asyncio.to_thread(read_steps, parts.data) if parts.data is not None else [],
        folds=console.FoldsView(
            num_waiting=folds.num_waiting, lag_seconds=folds.lag_seconds, num_dead=folds.num_dead
        ),
    )


@router.get("/version", summary="What runs here", responses=documented())
@open_to_all
async def read_version(parts: AppParts) -> wire.VersionResponse:
    """Code, prompts, weights and artifacts, each by version or fingerprint."""
    identity = parts.adapters.current.active.scorer.identity
    ordering = parts.live.by(identity)
    return wire.VersionResponse(
        version=build.version(),
        commit=build.commit(),
        prompts={
            "summary": prompts.SUMMARY_FINGERPRINT,
            "preference": prompts.PREFERENCE_FINGERPRINT,
            "scoring": prompts.SCORING_FINGERPRINT,
        },
        model=identity.model,
        adapter=identity.adapter,
        retrieval=ordering.rankers.fingerprint,
        ranker=ordering.ranker.fingerprint if ordering.ranker is not None else "",
        cheap_order=ordering.cheap_order,
        final_order=ordering.final_order,
    )


async def _redis_health(parts: Parts) -> wire.PartHealth:
    try:
        await parts.store.ping()
    except StateError:
        return wire.PartHealth(state="down", detail="does not answer")
    return wire.PartHealth(state="ok", detail="answers")


def _artifacts_health(parts: Parts) -> wire.PartHealth:
    ordering = parts.live.current
    detail = f"retrieval {ordering.rankers.fingerprint}"
    if ordering.ranker is not None:
        detail += f", ranker {ordering.ranker.fingerprint}"
    if not parts.live.refusal:
        return wire.PartHealth(state="ok", detail=detail)
    kind = parts.live.refusal.split(":", 1)[0]
    return wire.PartHealth(state="degraded", detail=f"{detail}; newer ones refused ({kind})")


def _adapters_health(parts: Parts) -> wire.PartHealth:
    """Degraded while another adapter was chosen than this process can serve."""
    active = parts.adapters.current.choice.active.name
    if not parts.adapters.problem:
        return wire.PartHealth(state="ok", detail=f"{active} is active")
    kind = parts.adapters.problem.split(":", 1)[0]
    return wire.PartHealth(
        state="degraded", detail=f"{active} serves on; what was chosen is refused ({kind})"
    )


async def _engine_health(parts: Parts) -> wire.PartHealth:
    error = await parts.engine_watch.look()
    if error is None:
        return wire.PartHealth(state="ok", detail="answers")
    return wire.PartHealth(state="degraded", detail=f"{type(error).__name__}; rankings are cheap")
