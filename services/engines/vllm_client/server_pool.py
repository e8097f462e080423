"""The servers of one set of weights: which one takes a prompt, and what happens when it fails.

All prompts are pure, so that any may be sent again. What fails goes to another server at once;
when none is left, it waits with growing intervals as long as patience lasts, and then fails with
the error that says which server did what. A prompt that fails again and again where
others succeed is at fault itself and is refused.

A score that is late is asked of a second server too (`hedging.py`).

A server that fails is left out. It is probed from then on, and comes back when it passes the
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
from services.engines.vllm_client.routing import choose_server
from services.engines.vllm_client.server import (
    CHECK_SECONDS,
    Bounds,
    RuntimeAdapter,
    Server,
    VerifiedServer,
    copy_error,
)
from services.engines.vllm_client.server_http import AttemptFailed

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


class ServerPool:
    """Servers that answer alike. Open them with `ServerPool.connect`."""

    def __init__(
        self,
        servers: Sequence[Server],
        bounds: Bounds,
        *,
        model: str,
        adapter: str | RuntimeAdapter | None,
    ) -> None:
        """Use `connect`."""
        self._servers = {server.url: server for server in servers}
        self._bounds = bounds
        self._names = (model, adapter)
        self.hedging = Hedging(bounds.hedge_share)
        self._verified: VerifiedServer | None = None
        self._server_up = asyncio.Event()  # replaced whenever a server takes prompts again
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
    ) -> "ServerPool":
        """Check every server. One that does not answer is left out, as long as another does.

        A RuntimeAdapter is loaded where it is not served, also by one that comes back later.
        Raises EngineUnavailable if none answers while patience lasts, ModelUnusable if one serves
        other models or they disagree, and what `Server.check` raises.
        """
        servers = [Server(url, bounds, transport) for url in urls]
        connected = cls(servers, bounds, model=model, adapter=adapter)
        try:
            await connected._connect()
        except BaseException:
            await connected.close()
            raise
        return connected

    @property
    def verified(self) -> VerifiedServer:
        """What all of them serve."""
        assert self._verified is not None
        return self._verified

    @property
    def breaker_states(self) -> dict[str, BreakerState]:
        """See `contract.Replicated`."""
        return {url: server.breaker.state for url, server in self._servers.items()}

    async def ask(self, request: ChatRequest[T]) -> T:
        """The answer of whichever server gives it.

        Raises PromptTooLong, EngineRefused and AnswerTokenMissing, which are the prompt's or the
        model's fault, and what is left when no server takes the prompt: EngineUnavailable,
        EngineOverloaded, EngineTimeout or ModelUnusable.
        """
        key = next(iter(request.picture_ids), None)
        retry = RetryState(self._bounds)
        while True:
            server = self._choose(key, retry)
            if server is None:
                await self._wait(retry)
                continue
            try:
                return await self._answer(server, request, retry)
            except AttemptFailed as failure:
                if retry.is_overdue():
                    raise failure.error from failure

    async def close(self) -> None:
        """Stop probing and close the connections; prompts in flight get EngineUnavailable."""
        self._closed = True
        for server in self._servers.values():
            server.mark_down(_closed(), abandon=True)
        self._server_up.set()
        probes = list(self._probes.values())
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        for server in self._servers.values():
            await server.close()

    async def unload_adapter(self) -> None:
        """Tell the servers to give up the adapter, if it is one that they were told to load."""
        _, adapter = self._names
        if isinstance(adapter, RuntimeAdapter) and self.verified.weights.adapter == adapter.name:
            await asyncio.gather(
                *(server.unload(adapter.name) for server in self._servers.values())
            )

    # --- one try ---------------------------------------------------------------------------------

    async def _answer(self, server: Server, request: ChatRequest[T], retry: "RetryState") -> T:
        """The answer of this server, or of a second one if this one is late."""
        if not request.may_be_hedged or len(self._servers) == 1:
            return await self._try(server, request, retry)
        hedging, clock = self.hedging, asyncio.get_running_loop().time
        hedging.note_prompt()
        sent_at = clock()
        late_after = hedging.late_after_seconds
        if late_after is None:
            answer = await self._try(server, request, retry)
        else:
            answer, is_second = await first_answer(
                self._try(server, request, retry),
                late_after_seconds=late_after,
                second=lambda: self._hedge(server, request, retry),
                passing=AttemptFailed,
            )
            hedging.num_won += is_second
        hedging.note_answer(clock() - sent_at)
        return answer

    def _hedge(
        self, late: Server, request: ChatRequest[T], retry: "RetryState"
    ) -> Coroutine[Any, Any, T] | None:
        """The same of the server with the least to do, if it has less to do than the late one."""
        loads = {url: load for url, load in self._loads(retry).items() if load < late.load}
        if not loads or self.hedging.late_after_seconds is None:
            return None
        self.hedging.spend()
        return self._try(self._servers[choose_server(None, loads)], request, retry)

    async def _try(self, server: Server, request: ChatRequest[T], retry: "RetryState") -> T:
        is_first = server.breaker.state == "half-open"
        try:
            answer = await server.ask(request, retry.deadline)
        except AttemptFailed as failure:
            self._note(server, failure)
            retry.note(server, failure)
            raise
        if is_first:
            self._notify_waiters()
        return answer

    # --- which server ---------------------------------------------------------------------------

    def _choose(self, key: str | None, retry: "RetryState") -> Server | None:
        loads = self._loads(retry)
        return self._servers[choose_server(key, loads)] if loads else None

    def _loads(self, retry: "RetryState") -> dict[str, int]:
        """Of the servers that may take this prompt."""
        return {
            url: server.load
            for url, server in self._servers.items()
            if server.obstacle is None and url not in retry.failed
        }

    async def _wait(self, retry: "RetryState") -> None:
        """Until a server comes back or another try is due; raises when patience is over."""
        if self._closed:
            raise _closed()
        if not retry.may_wait():
            raise retry.error or self._summarize_problems()
        now = asyncio.get_running_loop().time()
        in_use = [each for each in self._servers.values() if each.problem is None]
        free_in = min((each.busy_until - now for each in in_use), default=0.0)
        await retry.pause(self._server_up, at_least_seconds=free_in)

    def _summarize_problems(self) -> EngineError:
        """The one problem there is, or all of them under the kind of the first."""
        obstacles = [server.obstacle for server in self._servers.values()]
        problems = [each for each in obstacles if each is not None]
        if len(problems) == 1:
            return copy_error(problems[0])
        told = "; ".join(str(problem) for problem in problems)
        return type(problems[0])(f"none of {len(problems)} servers takes prompts: {told}")

    def _note(self, server: Server, failure: AttemptFailed) -> None:
        if failure.kind == "busy":
            now = asyncio.get_running_loop().time()
            server.busy_until = max(server.busy_until, now + failure.retry_after_seconds)
        elif failure.kind == "broken":
            server.num_broken_in_a_row += 1
        if failure.kind == "gone":
            self._abandon(server, failure.error)
        elif server.num_broken_in_a_row >= MAX_BROKEN:
            self._mark_down(server, failure.error)

    # --- in use, left out, back ------------------------------------------------------------------

    async def _connect(self) -> None:
        retry = RetryState(self._bounds)
        while True:
            checks = await asyncio.gather(
                *(server.check(*self._names) for server in self._servers.values()),
                return_exceptions=True,
            )
            for check in checks:
                if isinstance(check, BaseException) and not isinstance(check, _MAY_PASS):
                    raise check
            if any(not isinstance(check, BaseException) for check in checks):
                break
            if not retry.may_wait():
                raise _nobody_answers(checks)
            await retry.pause(self._server_up)
        for server, check in zip(self._servers.values(), checks, strict=True):
            if isinstance(check, EngineError):
                self._mark_down(server, check)
            elif isinstance(check, VerifiedServer):
                self._mark_up(server, check)
        identity = self.verified.weights.identity
        log.info(
            "servers_connected",
            urls=[*self._servers],
            model=identity.model,
            adapter=identity.adapter,
        )

    def _mark_up(self, server: Server, verified: VerifiedServer) -> None:
        """ModelUnusable if it differs from the servers that were taken in before."""
        if self._verified is None:
            self._verified = verified
        if verified != self._verified:
            raise ModelUnusable(
                f"the server at {server.url} serves {verified.difference(self._verified)} as the "
                "others; start all with the same model, adapter and options"
            )
        server.mark_up(verified, on_unresponsive=self._abandon)

    def _abandon(self, server: Server, problem: EngineError) -> None:
        """Leave out a server that is gone, and move what still waits for it to the others."""
        self._mark_down(server, problem, abandon=True)

    def _mark_down(self, server: Server, problem: EngineError, *, abandon: bool = False) -> None:
        if self._closed:
            return
        server.mark_down(problem, abandon=abandon)
        if server.url in self._probes:
            return
        log.warning("server_marked_down", url=server.url, error=str(problem))
        self._probes[server.url] = asyncio.create_task(self._probe_until_up(server))

    async def _probe_until_up(self, server: Server) -> None:
        pause, probe_seconds = FIRST_RETRY_SECONDS, PROBE_SECONDS
        for _ in range(
            server.breaker.num_failed_returns
        ):  # it passes its checks and answers no prompt
            pause = min(2 * pause, LONGEST_PROBE_SECONDS)
        if server.breaker.num_failed_returns:
            await asyncio.sleep(_jittered(pause))
        while True:
            try:
                verified = await server.check(*self._names, within_seconds=probe_seconds)
                self._mark_up(server, verified)
                break
            except EngineError as error:
                problem = error
            except (ArtifactMismatch, AdapterRefused) as error:
                problem = ModelUnusable(str(error))
            if str(problem) != str(server.problem):
                log.warning("server_still_down", url=server.url, error=str(problem))
            server.problem = problem
            await asyncio.sleep(_jittered(pause))
            pause = min(2 * pause, LONGEST_PROBE_SECONDS)
            probe_seconds = min(2 * probe_seconds, CHECK_SECONDS)
        del self._probes[server.url]
        log.info("server_marked_up", url=server.url)
        self._notify_waiters()

    def _notify_waiters(self) -> None:
        self._server_up.set()
        self._server_up = asyncio.Event()


class RetryState:
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

    def note(self, server: Server, failure: AttemptFailed) -> None:
        """EngineRefused if this prompt alone keeps failing."""
        self.error = failure.error
        self.failed.add(server.url)
        if failure.kind == "late":
            self._waited_seconds += self._bounds.timeout_seconds
        if failure.kind != "broken":
            return
        self._num_broken += 1
        before = self._answered_before.setdefault(server.url, server.num_answered)
        if self._num_broken >= MAX_BROKEN and server.num_answered > before:
            raise EngineRefused(
                f"this prompt failed {self._num_broken} times where others were answered: "
                f"{failure.error}"
            ) from failure

    def is_overdue(self) -> bool:
        """Whether its time is over."""
        return self.deadline is not None and asyncio.get_running_loop().time() >= self.deadline

    def may_wait(self) -> bool:
        """What counts is time without an answer to come, not that behind other prompts: a step of
        hours may see its server restart more than once.
        """
        return self._waited_seconds < self._bounds.patience_seconds

    async def pause(self, back: asyncio.Event, *, at_least_seconds: float = 0.0) -> None:
        """Wait until the next try, longer each time, or until a server is `back`."""
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
