"""Replicas of one set of weights: which one takes a prompt, and what happens when it fails.

All prompts are pure, so that any may be sent again. What fails goes to another replica at once;
when none is left, it waits with growing intervals as long as patience lasts, and then fails with
the error that says which server did what. A prompt that fails again and again where
others succeed is at fault itself and is refused.

A score that is late is asked of a second replica too (`hedging.py`).

A replica that fails is left out. It is probed from then on, and comes back when it passes the
checks of the first connection again: it may have been restarted with other weights.
"""

import asyncio
import random
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import httpx
import structlog

from services.core.errors import (
    AdapterRefused,
    ArtifactMismatch,
    EngineError,
    EngineOverloaded,
    EngineRefused,
    EngineTimeout,
    EngineUnavailable,
    ModelUnusable,
)
from services.engines.contract import BreakerState
from services.engines.vllm_client.chat_requests import ChatRequest
from services.engines.vllm_client.hedging import Hedging, first_answer
from services.engines.vllm_client.routing import choose_replica
from services.engines.vllm_client.server import (
    CHECK_SECONDS,
    Bounds,
    Checked,
    Replica,
    RuntimeAdapter,
    told_again,
)
from services.engines.vllm_client.server_http import Fault

log = structlog.get_logger(__name__)

T = TypeVar("T")

# So many failures where others succeed are a prompt's own fault; in a row they are the server's.
MAX_BROKEN = 3
FIRST_RETRY_SECONDS = 0.25
LONGEST_RETRY_SECONDS = 10.0
# Who is left out is probed at least this often: requests without patience do without it until then.
LONGEST_PROBE_SECONDS = 1.5
# So long the first probe may take, since one that was sent to a machine that vanished never ends;
# each further one twice as long, up to CHECK_SECONDS, since the server may just be slow. A server
# that was frozen answers its probe as soon as it thaws.
PROBE_SECONDS = 5.0

_MAY_PASS = (EngineUnavailable, EngineOverloaded, EngineTimeout)


class Replicas:
    """Servers that answer alike. Open them with `Replicas.connect`."""

    def __init__(
        self,
        replicas: Sequence[Replica],
        bounds: Bounds,
        *,
        model: str,
        adapter: str | RuntimeAdapter | None,
    ) -> None:
        """Use `connect`."""
        self._replicas = {replica.url: replica for replica in replicas}
        self._bounds = bounds
        self._names = (model, adapter)
        self.hedging = Hedging(bounds.hedge_share)
        self._checked: Checked | None = None
        self._back = asyncio.Event()  # replaced whenever a replica takes prompts again
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    @classmethod
    async def connect(
        cls,
        urls: Sequence[str],
        bounds: Bounds,
        *,
        model: str,
        adapter: str | RuntimeAdapter | None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> "Replicas":
        """Check every server. One that does not answer is left out, as long as another does.

        A RuntimeAdapter is loaded where it is not served, also by one that comes back later.
        Raises EngineUnavailable if none answers while patience lasts, ModelUnusable if one serves
        other models or they disagree, and what `Replica.check` raises.
        """
        replicas = [Replica(url, bounds, transport) for url in urls]
        connected = cls(replicas, bounds, model=model, adapter=adapter)
        try:
            await connected._connect()
        except BaseException:
            await connected.close()
            raise
        return connected

    @property
    def checked(self) -> Checked:
        """What all of them serve."""
        assert self._checked is not None
        return self._checked

    @property
    def breaker_states(self) -> dict[str, BreakerState]:
        """See `contract.Replicated`."""
        return {url: replica.breaker.state for url, replica in self._replicas.items()}

    async def ask(self, request: ChatRequest[T]) -> T:
        """The answer of whichever replica gives it.

        Raises PromptTooLong, EngineRefused and AnswerTokenMissing, which are the prompt's or the
        model's fault, and what is left when no replica takes the prompt: EngineUnavailable,
        EngineOverloaded, EngineTimeout or ModelUnusable.
        """
        key = next(iter(request.picture_ids), None)
        trial = _Trial(self._bounds)
        while True:
            replica = self._choose(key, trial)
            if replica is None:
                await self._wait(trial)
                continue
            try:
                return await self._answer(replica, request, trial)
            except Fault as fault:
                if trial.is_late():
                    raise fault.error from fault

    async def close(self) -> None:
        """Stop probing and close the connections; prompts in flight get EngineUnavailable."""
        self._closed = True
        for replica in self._replicas.values():
            replica.leave_out(_closed(), abandon=True)
        self._back.set()
        probes = list(self._probes.values())
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        for replica in self._replicas.values():
            await replica.close()

    async def unload_adapter(self) -> None:
        """Tell the servers to give up the adapter, if it is one that they were told to load."""
        _, adapter = self._names
        if isinstance(adapter, RuntimeAdapter) and self.checked.weights.adapter == adapter.name:
            await asyncio.gather(
                *(replica.unload(adapter.name) for replica in self._replicas.values())
            )

    # --- one try ---------------------------------------------------------------------------------

    async def _answer(self, replica: Replica, request: ChatRequest[T], trial: "_Trial") -> T:
        """The answer of this replica, or of a second one if this one is late; raises Fault."""
        if not request.may_be_hedged or len(self._replicas) == 1:
            return await self._try(replica, request, trial)
        hedging, clock = self.hedging, asyncio.get_running_loop().time
        hedging.note_prompt()
        asked_at = clock()
        late_after = hedging.late_after_seconds
        if late_after is None:
            answer = await self._try(replica, request, trial)
        else:
            answer, is_second = await first_answer(
                self._try(replica, request, trial),
                late_after_seconds=late_after,
                second=lambda: self._hedge(replica, request, trial),
                passing=Fault,
            )
            hedging.num_won += is_second
        hedging.note_answer(clock() - asked_at)
        return answer

    def _hedge(
        self, late: Replica, request: ChatRequest[T], trial: "_Trial"
    ) -> Coroutine[Any, Any, T] | None:
        """The same of the replica with the least to do, if it has less to do than the late one."""
        loads = {url: load for url, load in self._loads(trial).items() if load < late.load}
        if not loads or self.hedging.late_after_seconds is None:
            return None
        self.hedging.spend()
        return self._try(self._replicas[choose_replica(None, loads)], request, trial)

    async def _try(self, replica: Replica, request: ChatRequest[T], trial: "_Trial") -> T:
        is_first = replica.breaker.state == "half-open"
        try:
            answer = await replica.ask(request, trial.deadline)
        except Fault as fault:
            self._note(replica, fault)
            trial.note(replica, fault)
            raise
        if is_first:
            self._tell_who_waits()
        return answer

    # --- which replica ---------------------------------------------------------------------------

    def _choose(self, key: str | None, trial: "_Trial") -> Replica | None:
        loads = self._loads(trial)
        return self._replicas[choose_replica(key, loads)] if loads else None

    def _loads(self, trial: "_Trial") -> dict[str, int]:
        """Of the replicas that may take this prompt."""
        return {
            url: replica.load
            for url, replica in self._replicas.items()
            if replica.obstacle is None and url not in trial.failed
        }

    async def _wait(self, trial: "_Trial") -> None:
        """Until a replica comes back or another try is due; raises when patience is over."""
        if self._closed:
            raise _closed()
        if not trial.is_patient():
            raise trial.error or self._what_is_wrong()
        now = asyncio.get_running_loop().time()
        in_use = [each for each in self._replicas.values() if each.problem is None]
        free_in = min((each.busy_until - now for each in in_use), default=0.0)
        await trial.pause(self._back, at_least_seconds=free_in)

    def _what_is_wrong(self) -> EngineError:
        """The one problem there is, or all of them under the kind of the first."""
        obstacles = [replica.obstacle for replica in self._replicas.values()]
        problems = [each for each in obstacles if each is not None]
        if len(problems) == 1:
            return told_again(problems[0])
        told = "; ".join(str(problem) for problem in problems)
        return type(problems[0])(f"none of {len(problems)} servers takes prompts: {told}")

    def _note(self, replica: Replica, fault: Fault) -> None:
        if fault.kind == "busy":
            now = asyncio.get_running_loop().time()
            replica.busy_until = max(replica.busy_until, now + fault.retry_after_seconds)
        elif fault.kind == "broken":
            replica.num_broken_in_a_row += 1
        if fault.kind == "gone":
            self._abandon(replica, fault.error)
        elif replica.num_broken_in_a_row >= MAX_BROKEN:
            self._leave_out(replica, fault.error)

    # --- in use, left out, back ------------------------------------------------------------------

    async def _connect(self) -> None:
        trial = _Trial(self._bounds)
        while True:
            checks = await asyncio.gather(
                *(replica.check(*self._names) for replica in self._replicas.values()),
                return_exceptions=True,
            )
            for check in checks:
                if isinstance(check, BaseException) and not isinstance(check, _MAY_PASS):
                    raise check
            if any(not isinstance(check, BaseException) for check in checks):
                break
            if not trial.is_patient():
                raise _nobody_answers(checks)
            await trial.pause(self._back)
        for replica, check in zip(self._replicas.values(), checks, strict=True):
            if isinstance(check, EngineError):
                self._leave_out(replica, check)
            elif isinstance(check, Checked):
                self._take_in(replica, check)
        identity = self.checked.weights.identity
        log.info(
            "replicas_connected",
            urls=[*self._replicas],
            model=identity.model,
            adapter=identity.adapter,
        )

    def _take_in(self, replica: Replica, checked: Checked) -> None:
        """ModelUnusable if it differs from the replicas that were taken in before."""
        if self._checked is None:
            self._checked = checked
        if checked != self._checked:
            raise ModelUnusable(
                f"the server at {replica.url} serves {checked.difference(self._checked)} as the "
                "others; start all with the same model, adapter and options"
            )
        replica.take_in(checked, on_silence=self._abandon)

    def _abandon(self, replica: Replica, problem: EngineError) -> None:
        """Leave out a server that is gone, and move what still waits for it to the others."""
        self._leave_out(replica, problem, abandon=True)

    def _leave_out(self, replica: Replica, problem: EngineError, *, abandon: bool = False) -> None:
        if self._closed:
            return
        replica.leave_out(problem, abandon=abandon)
        if replica.url in self._probes:
            return
        log.warning("replica_left_out", url=replica.url, error=str(problem))
        self._probes[replica.url] = asyncio.create_task(self._bring_back(replica))

    async def _bring_back(self, replica: Replica) -> None:
        pause, probe_seconds = FIRST_RETRY_SECONDS, PROBE_SECONDS
        for _ in range(replica.breaker.num_in_vain):  # it passes its checks and answers no prompt
            pause = min(2 * pause, LONGEST_PROBE_SECONDS)
        if replica.breaker.num_in_vain:
            await asyncio.sleep(_jittered(pause))
        while True:
            try:
                checked = await replica.check(*self._names, within_seconds=probe_seconds)
                self._take_in(replica, checked)
                break
            except EngineError as error:
                problem = error
            except (ArtifactMismatch, AdapterRefused) as error:
                problem = ModelUnusable(str(error))
            if str(problem) != str(replica.problem):
                log.warning("replica_still_left_out", url=replica.url, error=str(problem))
            replica.problem = problem
            await asyncio.sleep(_jittered(pause))
            pause = min(2 * pause, LONGEST_PROBE_SECONDS)
            probe_seconds = min(2 * probe_seconds, CHECK_SECONDS)
        del self._probes[replica.url]
        log.info("replica_came_back", url=replica.url)
        self._tell_who_waits()

    def _tell_who_waits(self) -> None:
        self._back.set()
        self._back = asyncio.Event()


class _Trial:
    """What one prompt has been through."""

    def __init__(self, bounds: Bounds) -> None:
        # Who is patient waits for a slot as long as prompts before it are answered.
        now = asyncio.get_running_loop().time()
        self.deadline = None if bounds.patience_seconds else now + bounds.timeout_seconds
        self.error: EngineError | None = None
        self.failed: set[str] = set()
        self._bounds = bounds
        self._waited_seconds = 0.0
        self._pause_seconds = FIRST_RETRY_SECONDS
        self._num_broken = 0
        self._answered_before: dict[str, int] = {}

    def note(self, replica: Replica, fault: Fault) -> None:
        """EngineRefused if this prompt alone keeps failing."""
        self.error = fault.error
        self.failed.add(replica.url)
        if fault.kind == "late":
            self._waited_seconds += self._bounds.timeout_seconds
        if fault.kind != "broken":
            return
        self._num_broken += 1
        before = self._answered_before.setdefault(replica.url, replica.num_answered)
        if self._num_broken >= MAX_BROKEN and replica.num_answered > before:
            raise EngineRefused(
                f"this prompt failed {self._num_broken} times where others were answered: "
                f"{fault.error}"
            ) from fault

    def is_late(self) -> bool:
        """Whether its time is over."""
        return self.deadline is not None and asyncio.get_running_loop().time() >= self.deadline

    def is_patient(self) -> bool:
        """What counts is time without an answer to come, not that behind other prompts: a step of
        hours may see its server restart more than once.
        """
        return self._waited_seconds < self._bounds.patience_seconds

    async def pause(self, back: asyncio.Event, *, at_least_seconds: float = 0.0) -> None:
        """Wait until the next try, longer each time, or until a replica is `back`."""
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(at_least_seconds, _jittered(self._pause_seconds))):
                await back.wait()
        except TimeoutError:
            self._pause_seconds = min(2 * self._pause_seconds, LONGEST_RETRY_SECONDS)
        self._waited_seconds += asyncio.get_running_loop().time() - started
        self.failed.clear()


def _jittered(seconds: float) -> float:
    """So that clients which failed together do not come back together."""
    return seconds * random.uniform(0.5, 1.5)


def _closed() -> EngineUnavailable:
    return EngineUnavailable("the engine is closed")


def _nobody_answers(checks: Sequence[object]) -> EngineUnavailable:
    told = "; ".join(str(check) for check in checks)
    return EngineUnavailable(
        f"no vLLM server answers at the given addresses ({told}); start one with `msr "
        "serve-model`, or use --engine local"
    )
