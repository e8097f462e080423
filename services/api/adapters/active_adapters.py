"""Which adapters score now, and how that changes without a restart.

The choice in use is one value, replaced in one assignment. So a request ends with the adapter
that it began with. The choice is stored in Redis (`state/adapter_selection.py`). The process that
gets the request for a change loads the adapters, writes the choice unless another process wrote
one meanwhile, and uses it. All other processes read the choice every few seconds. A process that
cannot follow it (the folder is missing, the model server refuses) keeps its adapters, reports the
problem, and tries again.

An adapter that is no longer chosen stays loaded for `retire_seconds`, for running requests, slower
processes and a rollback.
"""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import structlog

from services.api.adapters.experiment_arms import draw_arm
from services.core.errors import (
    AdapterRefused,
    ArtifactMismatch,
    MsrError,
    StateUnavailable,
    UnknownAdapter,
)
from services.core.records import UserId
from services.engines.adapter_folders import AdapterFolders, FoundAdapter
from services.engines.contract import AdapterHost, Engine, Scorer
from services.state.adapter_selection import (
    AdapterRef,
    AdapterSelection,
    AdapterSelections,
    Arm,
    Experiment,
    Shadow,
)

log = structlog.get_logger(__name__)

RETIRE_SECONDS = 300.0
BASE_ALONE = "none"


Find = Callable[[str], AdapterRef]


@dataclass(eq=False, slots=True)
class Loaded:
    """An adapter that can score, how many requests use it, and since when it is not chosen."""

    ref: AdapterRef
    scorer: Scorer
    num_leases: int = 0
    unused_since: float | None = None


@dataclass(frozen=True, slots=True)
class Assigned:
    """The adapter of one request; `experiment` and `arm` are None unless an experiment runs."""

    name: str
    scorer: Scorer
    experiment: str | None = None
    arm: str | None = None


class LiveAdapters:
    """The adapters of one API process.

    `choice` is the choice in use. `problem` says why the stored one is not in use; "" if it is.
    `is_chosen` is False as long as the adapter is the one that `--adapter` names and no choice was
    ever stored.
    """

    def __init__(
        self,
        engine: Engine,
        choices: AdapterSelections,
        folders: AdapterFolders,
        *,
        own_name: str = "",
        retire_seconds: float = RETIRE_SECONDS,
    ) -> None:
        """`own_name`: the name of the adapter that the engine was opened with."""
        adapter = engine.identity.adapter
        name = re.sub(r"[^A-Za-z0-9._@-]", "-", own_name) if adapter else BASE_ALONE
        own = AdapterRef(name or "as-started", adapter)
        self.choice = AdapterSelection(own)
        self.is_chosen = False
        self.problem = ""
        self._own = own
        self._engine = engine
        self._choices = choices
        self._folders = folders
        self._retire_seconds = retire_seconds
        self._loaded = {adapter: Loaded(own, engine)}  # by weights
        self._changing = asyncio.Lock()

    @property
    def active(self) -> Scorer:
        """The adapter that scores unless an experiment runs."""
        return self._loaded[self.choice.active.weights].scorer

    @property
    def model(self) -> str:
        """Fingerprint of the base model."""
        return self._engine.identity.model

    async def known(self) -> list[tuple[AdapterRef, FoundAdapter | None]]:
        """The adapters that have a folder now, then those in use that have none."""
        found = await asyncio.to_thread(self._folders.scan)
        refs = [
            (AdapterRef(each.name, each.manifest.weights if each.manifest else ""), each)
            for each in found.values()
        ]
        used = (self._own, *self.choice.adapters, self.choice.previous)
        listed = {ref for ref, _ in refs}
        gone = dict.fromkeys(ref for ref in used if ref is not None and ref not in listed)
        return [*refs, *((ref, None) for ref in gone)]

    def has_loaded(self, ref: AdapterRef) -> bool:
        """Whether it can score without being loaded first."""
        return ref.weights in self._loaded

    # --- requests --------------------------------------------------------------------------------

    def lease_for_user(self, user_id: UserId) -> AbstractContextManager[Assigned]:
        """The adapter that scores for this user; it stays loaded inside the block."""
        experiment = self.choice.experiment
        if experiment is None:
            return self._lease(self.choice.active)
        place = draw_arm(experiment.name, user_id, [each.weight for each in experiment.arms])
        arm = experiment.arms[place]
        return self._lease(arm.adapter, experiment.name, arm.name)

    def lease_shadow(self) -> AbstractContextManager[Assigned | None]:
        """The adapter that scores as shadow; None if there is none."""
        shadow = self.choice.shadow
        return nullcontext() if shadow is None else self._lease(shadow.adapter)

    @contextmanager
    def _lease(
        self, adapter: AdapterRef, experiment: str | None = None, arm: str | None = None
    ) -> Iterator[Assigned]:
        loaded = self._loaded[adapter.weights]
        loaded.num_leases += 1
        try:
            yield Assigned(adapter.name, loaded.scorer, experiment, arm)
        finally:
            loaded.num_leases -= 1

    # --- changes ---------------------------------------------------------------------------------

    async def activate(self, name: str) -> AdapterSelection:
        """Make this adapter the active one; returns the choice before. Activating the adapter that
        is active already stores the choice, so that it is active after a restart too, whatever
        `--adapter` names.

        Raises UnknownAdapter, AdapterRefused if it may not serve or an experiment runs,
        StateConflict if another process changes the choice at this moment, EngineError if the
        engine cannot load it. Then the old one stays active.
        """

        def change(before: AdapterSelection, found: Find) -> AdapterSelection:
            adapter = found(name)
            if adapter == before.active:
                return before
            _require_no_experiment(before)
            return replace(before, active=adapter, previous=before.active)

        return await self._change(change, keeps_unchanged=True)

    async def roll_back(self) -> AdapterSelection:
        """Make the previous adapter active again; a second rollback reverts the first.

        Raises what `activate` raises; AdapterRefused also if there is no previous one.
        """

        def change(before: AdapterSelection, found: Find) -> AdapterSelection:
            if before.previous is None:
                raise AdapterRefused(
                    "no adapter served before the active one; activate one by name"
                )
            _require_no_experiment(before)
            return replace(before, active=before.previous, previous=before.active)

        return await self._change(change)

    async def set_shadow(self, name: str | None, share: float = 0.0) -> AdapterSelection:
        """Score a share of the requests by this adapter too; None: by no other adapter.

        Raises what `activate` raises.
        """

        def change(before: AdapterSelection, found: Find) -> AdapterSelection:
            return replace(before, shadow=None if name is None else Shadow(found(name), share))

        return await self._change(change)

    async def set_experiment(
        self, name: str | None, arms: Mapping[str, tuple[str, float]] | None = None
    ) -> AdapterSelection:
        """Divide the users among arms, name -> (adapter, weight); None ends the experiment.

        Raises what `activate` raises.
        """

        def change(before: AdapterSelection, found: Find) -> AdapterSelection:
            if name is None:
                return replace(before, experiment=None)
            divided = tuple(
                Arm(arm, found(adapter), weight) for arm, (adapter, weight) in (arms or {}).items()
            )
            return replace(before, experiment=Experiment(name, divided))

        return await self._change(change)

    async def _change(
        self,
        change: Callable[[AdapterSelection, Find], AdapterSelection],
        *,
        keeps_unchanged: bool = False,
    ) -> AdapterSelection:
        """Change the choice as a whole, or not at all. If no choice is stored and `change` changes
        nothing, nothing is stored, unless `keeps_unchanged`.
        """
        async with self._changing:
            model = self._engine.identity.model
            stored = await self._choices.load(model)
            before = stored or AdapterSelection(self._own)
            found = await asyncio.to_thread(self._folders.scan)
            after = change(before, lambda name: self._resolve(name, before, found))
            if stored is None and after == before and not keeps_unchanged:
                return before
            await self._load_all(after, found)
            if after != stored:
                await self._choices.save(model, stored, after)
            self.is_chosen, self.problem = True, ""
            self._use(after)
            return before

    def _resolve(
        self, name: str, before: AdapterSelection, found: Mapping[str, FoundAdapter]
    ) -> AdapterRef:
        """The adapter of this name, if it can be served."""
        if name in found:
            if found[name].problem:
                raise AdapterRefused(f"adapter {name!r} cannot be served: {found[name].problem}")
            manifest = found[name].manifest
            assert manifest is not None
            return AdapterRef(name, manifest.weights)
        for ref in (self._own, before.active, before.previous):
            if ref is not None and ref.name == name:
                return ref
        raise UnknownAdapter(f"there is no adapter {name!r}; GET /adapters lists those there are")

    # --- following -------------------------------------------------------------------------------

    async def look(self) -> None:
        """Read the stored choice once, and use it if it can be loaded."""
        async with self._changing:
            try:
                stored = await self._choices.load(self._engine.identity.model)
                self.is_chosen = stored is not None
                chosen = stored or AdapterSelection(self._own)
                if chosen != self.choice:
                    await self._load_all(chosen, await asyncio.to_thread(self._folders.scan))
                    self._use(chosen)
                self.problem = ""
                await self._retire()
            except StateUnavailable as error:
                log.debug("adapter_choice_unread", error=str(error))
            except Exception as error:  # any error: the adapters in use stay, `problem` says why
                problem = _public_problem(error)
                if problem != self.problem:
                    log.exception("adapter_sync_failed")
                self.problem = problem

    async def _load_all(self, choice: AdapterSelection, found: Mapping[str, FoundAdapter]) -> None:
        for ref in choice.adapters:
            if ref.weights not in self._loaded:
                self._loaded[ref.weights] = Loaded(ref, await self._load(ref, found))

    async def _load(self, ref: AdapterRef, found: Mapping[str, FoundAdapter]) -> Scorer:
        if not isinstance(self._engine, AdapterHost):
            raise AdapterRefused(
                f"this engine serves the adapter it was opened with, {self._own.name!r}, and no "
                "other; use the local engine or vLLM servers"
            )
        folder = next((each.folder for each in found.values() if _holds(each, ref)), None)
        if folder is None:
            raise AdapterRefused(
                f"no folder here holds the weights {ref.weights} of adapter {ref.name!r}; put them "
                "back, or activate another"
            )
        try:
            return await self._engine.load_adapter(folder)
        except ArtifactMismatch as error:
            log.warning("adapter_refused", adapter=ref.name, error=str(error))
            raise AdapterRefused(
                f"the files of adapter {ref.name!r} do not match its manifest, here or on the "
                "model server; give both the files of the same training"
            ) from error

    def _use(self, choice: AdapterSelection) -> None:
        before, self.choice = self.choice, choice
        used = (self._own, *choice.adapters, choice.previous)
        kept = {ref.weights for ref in used if ref is not None}
        for weights, loaded in self._loaded.items():
            loaded.unused_since = None if weights in kept else loaded.unused_since or _now()
        if before != choice:
            log.info("adapters_in_use", before=_for_log(before), now=_for_log(choice))

    async def _retire(self) -> None:
        """Unload adapters that have not been chosen for `retire_seconds`."""
        for weights, loaded in list(self._loaded.items()):
            since = loaded.unused_since
            if since is None or loaded.num_leases or _now() - since < self._retire_seconds:
                continue
            del self._loaded[weights]
            assert isinstance(self._engine, AdapterHost)
            try:
                await self._engine.unload_adapter(loaded.scorer)
            except MsrError as error:
                log.warning("adapter_not_unloaded", adapter=loaded.ref.name, error=str(error))


def _require_no_experiment(choice: AdapterSelection) -> None:
    if choice.experiment is not None:
        raise AdapterRefused(
            f"the experiment {choice.experiment.name!r} decides which adapter scores; end it first "
            "(DELETE /adapters/experiment), then all users get the active adapter"
        )


def _holds(found: FoundAdapter, ref: AdapterRef) -> bool:
    return (
        not found.problem and found.manifest is not None and found.manifest.weights == ref.weights
    )


def _public_problem(error: Exception) -> str:
    """What API clients may see: messages of other errors than AdapterRefused may name paths."""
    reason = str(error) if isinstance(error, AdapterRefused) else "the log has the reason"
    return f"{type(error).__name__}: {reason}"


def _for_log(choice: AdapterSelection) -> dict[str, object]:
    experiment = choice.experiment
    return {
        "active": choice.active.name,
        "weights": choice.active.weights,
        "previous": choice.previous and choice.previous.name,
        "shadow": choice.shadow and choice.shadow.adapter.name,
        "experiment": experiment and experiment.name,
        "arms": {arm.name: arm.adapter.name for arm in experiment.arms} if experiment else {},
    }


def _now() -> float:
    return asyncio.get_running_loop().time()
