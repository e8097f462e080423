"""Adapters: list and activate them, set a shadow, run an experiment."""

from collections.abc import Awaitable
from typing import Annotated

import structlog
from fastapi import APIRouter, Path

from services.api.dependencies import AppDependencies, Dependencies
from services.api.http.problems import INVALID_REQUEST, documented
from services.api.route_guard import Caller, GuardedRoute, needs
from services.core import wire
from services.core.api_keys import ApiKey, Scope
from services.core.errors import (
    AdapterRefused,
    AnswerTokenMissing,
    EngineError,
    EngineOverloaded,
    EngineTimeout,
    EngineUnavailable,
    InputError,
    ModelUnusable,
    StateConflict,
    StateError,
    StateUnavailable,
    UnknownAdapter,
)
from services.engines.adapter_folders import FoundAdapter
from services.engines.adapter_manifest import AdapterManifest
from services.engines.contract import EngineIdentity
from services.state.adapter_selection import AdapterRef, AdapterSelection

log = structlog.get_logger(__name__)

router = APIRouter(tags=["adapters"], route_class=GuardedRoute)

PathName = Annotated[wire.Name, Path(description="The adapter's name.")]

_NO_FUSION = (
    "the weights of fusion were fitted for another adapter's margins: what this one has scored is "
    "ordered by its margin alone; run `msr fit-ranker --for-adapter` with it"
)

_CHANGES = (AdapterRefused, StateConflict, StateUnavailable, StateError)
_LOADS = (
    UnknownAdapter,
    AnswerTokenMissing,
    ModelUnusable,
    EngineUnavailable,
    EngineOverloaded,
    EngineTimeout,
    EngineError,
)


@router.get("/adapters", summary="List the adapters", responses=documented())
@needs(Scope.ADMIN)
async def read(deps: AppDependencies) -> wire.AdaptersResponse:
    """Every adapter in this process's folders, and those in use; reads the folders each time."""
    return await _view(deps)


@router.post(
    "/adapters/{name}/activate",
    summary="Let an adapter score",
    responses=documented(*_LOADS, *_CHANGES, INVALID_REQUEST),
)
@needs(Scope.ADMIN)
async def activate(name: PathName, deps: AppDependencies, caller: Caller) -> wire.AdaptersResponse:
    """Let the adapter score from the next request on: here at once, elsewhere within seconds.

    Running requests end with the adapter that they began with. After a refusal the old one stays
    active. Read `ranked_by` and `note` of the answer: items that an adapter without weights of
    fusion has scored are ordered by its margin alone.
    """
    return await _change("activate", deps.adapters.activate(name), deps, caller)


@router.post(
    "/adapters/rollback",
    summary="Let the previous adapter score again",
    responses=documented(*_LOADS[1:], *_CHANGES),
)
@needs(Scope.ADMIN)
async def roll_back(deps: AppDependencies, caller: Caller) -> wire.AdaptersResponse:
    """The same as activating it by its name; a second rollback reverts the first."""
    return await _change("rollback", deps.adapters.roll_back(), deps, caller)


@router.put(
    "/adapters/shadow",
    summary="Let an adapter score along",
    responses=documented(*_LOADS, *_CHANGES, body=True),
)
@needs(Scope.ADMIN)
async def set_shadow(
    body: wire.ShadowIn, deps: AppDependencies, caller: Caller
) -> wire.AdaptersResponse:
    """It scores a share of the requests again, after they were answered and while no request waits
    for the model. `msr_shadow_*` in GET /metrics compares.
    """
    return await _change("shadow", deps.adapters.set_shadow(body.adapter, body.share), deps, caller)


@router.delete(
    "/adapters/shadow",
    summary="Let no adapter score along",
    responses=documented(*_LOADS[1:], *_CHANGES),
)
@needs(Scope.ADMIN)
async def clear_shadow(deps: AppDependencies, caller: Caller) -> wire.AdaptersResponse:
    """Succeeds if there was none, too."""
    return await _change("shadow", deps.adapters.set_shadow(None), deps, caller)


@router.put(
    "/adapters/experiment",
    summary="Divide the users among adapters",
    responses=documented(*_LOADS, *_CHANGES, InputError, body=True),
)
@needs(Scope.ADMIN)
async def set_experiment(
    body: wire.ExperimentIn, deps: AppDependencies, caller: Caller
) -> wire.AdaptersResponse:
    """A user is always in the same arm, in every process. While it runs no adapter can be activated
    or rolled back. `experiment` and `arm` are in every answer, and labels in GET /metrics.
    """
    arms = {arm.name: (arm.adapter, arm.weight) for arm in body.arms}
    if len(arms) < len(body.arms):
        raise InputError(f"two arms of experiment {body.name!r} have the same name; rename one")
    return await _change("experiment", deps.adapters.set_experiment(body.name, arms), deps, caller)


@router.delete(
    "/adapters/experiment",
    summary="End the experiment",
    responses=documented(*_LOADS[1:], *_CHANGES),
)
@needs(Scope.ADMIN)
async def end_experiment(deps: AppDependencies, caller: Caller) -> wire.AdaptersResponse:
    """The active adapter scores for all users again. Succeeds if none ran, too."""
    return await _change("experiment", deps.adapters.set_experiment(None), deps, caller)


async def _change(
    change: str,
    changing: Awaitable[AdapterSelection],
    deps: Dependencies,
    caller: ApiKey | None,
) -> wire.AdaptersResponse:
    before = await changing
    after = deps.adapters.choice
    log.info(
        "adapters_changed",
        change=change,
        active_before=before.active.name,
        active=after.active.name,
        weights=after.active.weights,
        experiment=after.experiment and after.experiment.name,
        shadow=after.shadow and after.shadow.adapter.name,
        by_key=caller.key_id if caller is not None else None,
    )
    await deps.live.look()  # refused artifacts may fit the adapter that was chosen now
    return await _view(deps)


# --- answers -------------------------------------------------------------------------------------


async def _view(deps: Dependencies) -> wire.AdaptersResponse:
    adapters = deps.adapters
    choice = adapters.choice
    experiment = choice.experiment
    weights = sum(arm.weight for arm in experiment.arms) if experiment else 1.0
    return wire.AdaptersResponse(
        model=adapters.model,
        adapters=[_adapter_view(deps, ref, found) for ref, found in await adapters.known()],
        active=choice.active.name,
        previous=choice.previous and choice.previous.name,
        shadow=choice.shadow
        and wire.ShadowView(adapter=choice.shadow.adapter.name, share=choice.shadow.share),
        experiment=experiment
        and wire.ExperimentView(
            name=experiment.name,
            arms=[
                wire.ArmView(name=arm.name, adapter=arm.adapter.name, share=arm.weight / weights)
                for arm in experiment.arms
            ],
        ),
        problem=adapters.problem or None,
    )


def _model_name(deps: Dependencies, manifest: AdapterManifest) -> str:
    """The card's name where the adapter's base is the model in use; else what training knew."""
    own = deps.engine.identity
    return own.name if manifest.model == own.model else manifest.model_name


def _adapter_view(
    deps: Dependencies, ref: AdapterRef, found: FoundAdapter | None
) -> wire.AdapterView:
    manifest = found.manifest if found is not None else None
    reason = "" if deps.adapters.has_loaded(ref) else "its folder is gone"
    reason = found.problem if found is not None else reason
    ordering = deps.live.by(EngineIdentity(deps.adapters.model, ref.weights))
    return wire.AdapterView(
        name=ref.name,
        weights=ref.weights,
        fingerprint=manifest and manifest.fingerprint,
        stage=manifest and manifest.stage,
        parent=manifest and manifest.parent,
        protocol=manifest and manifest.protocol,
        model=manifest and manifest.model,
        model_name=manifest and _model_name(deps, manifest),
        calibration=manifest and manifest.calibration,
        validation=manifest and manifest.validation,
        validation_is_foreign=manifest is not None and deps.caveats.is_foreign(manifest),
        servable=not reason,
        reason=reason or None,
        roles=_roles(deps.adapters.choice, ref),
        ranked_by=ordering.final_order,
        note=_NO_FUSION if deps.live.weighs_margins and ordering.final_order == "mllm" else None,
    )


def _roles(choice: AdapterSelection, ref: AdapterRef) -> list[wire.AdapterRole]:
    arms = choice.experiment.arms if choice.experiment else ()
    played: dict[wire.AdapterRole, bool] = {
        "active": ref == choice.active,
        "previous": ref == choice.previous,
        "shadow": choice.shadow is not None and ref == choice.shadow.adapter,
        "arm": any(ref == arm.adapter for arm in arms),
    }
    return [role for role, plays in played.items() if plays]
