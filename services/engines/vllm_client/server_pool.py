"""Servers of one set of weights: which one takes a prompt, and what happens when it fails.

Prompts have no side effects, so any of them may be sent again. A prompt that fails goes to another
server at once. When no server is left it waits, with growing pauses, as long as its patience lasts;
then it fails with the error that names each server. A prompt that keeps failing where others
succeed is refused.

A score that is late is sent to a second server too (`hedging.py`).

A server that fails is marked down and probed. It is marked up when it passes the checks of the
first connection again: it may have been restarted with other weights.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import structlog

from services.core.backoff import growing_pause, jittered
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
from services.engines.contract import BreakerState, EngineOptions
from services.engines.vllm_client.chat_requests import ChatRequest
from services.engines.vllm_client.hedging import Hedging, first_answer
from services.engines.vllm_client.routing import choose_server
from services.engines.vllm_client.server import CHECK_SECONDS, Server, copy_error
from services.engines.vllm_client.server_check import RuntimeAdapter, VerifiedServer
from services.engines.vllm_client.server_http import AttemptFailed, Send

log = structlog.get_logger(__name__)

T = TypeVar("T")

# A server that is down is probed at least this often: it takes no prompt until a probe succeeds.
LONGEST_PROBE_SECONDS = 1.5
# The first probe may take this long: one to a machine that vanished never ends. Each further probe
# may take twice as long, up to CHECK_SECONDS: the server may only be slow. A server that was frozen
# answers its probe as soon as it thaws.
PROBE_SECONDS = 5.0

# A prompt that fails so often while others succeed is at fault; a server that fails so often in a
# row is.
MAX_BROKEN = 3
FIRST_RETRY_SECONDS = 0.25
LONGEST_RETRY_SECONDS = 10.0

_TEMPORARY = (EngineUnavailable, EngineOverloaded, EngineTimeout)


class RetryState:
    """The attempts of one prompt, or of connecting."""

    def __init__(self, options: EngineOptions) -> None:
        """Starts the clock."""
        # A patient prompt waits for a slot as long as prompts before it are answered.
        now = asyncio.get_running_loop().time()
        self.deadline = None if options.patience_seconds else now + options.timeout_seconds
        self.error: EngineError | None = None
        self.failed: set[str] = set()
        self._options = options
        self._waited_seconds = 0.0
        self._num_pauses = 0
        self._num_broken = 0
        self._answered_before: dict[str, int] = {}

    def note(self, server: Server, failure: AttemptFailed) -> None:
        """EngineRefused if this prompt alone keeps failing."""
        self.error = failure.error
        self.failed.add(server.url)
        if failure.kind == "timeout":
            self._waited_seconds += self._options.timeout_seconds
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
        """Whether the deadline has passed."""
        return self.deadline is not None and asyncio.get_running_loop().time() >= self.deadline

    def may_wait(self) -> bool:
        """Whether patience is left.

        Only time in which no answer can come counts, not time behind other prompts: during a step
        of hours a server may restart more than once.
        """
        return self._waited_seconds < self._options.patience_seconds

    async def pause(self, server_up: asyncio.Event, *, at_least_seconds: float = 0.0) -> None:
        """Wait until the next attempt, longer each time, or until a server is up."""
        started = asyncio.get_running_loop().time()
        seconds = _pause_seconds(self._num_pauses + 1, longest=LONGEST_RETRY_SECONDS)
        try:
            async with asyncio.timeout(max(at_least_seconds, seconds)):
                await server_up.wait()
        except TimeoutError:
            self._num_pauses += 1
        self._waited_seconds += asyncio.get_running_loop().time() - started
        self.failed.clear()


class ServerPool:
    """Servers that answer alike. Open it with `connect`, and close it."""

    def __init__(
        self,
        urls: Sequence[str],
        options: EngineOptions,
        send: Send,
        *,
        model: str,
        adapter: str | RuntimeAdapter | None,
    ) -> None:
        """A RuntimeAdapter is loaded by servers that lack it, also by one that comes back later.

        InputError for a URL that is no server's address.
        """
        servers = [Server(url, options, send, on_unresponsive=self._mark_down) for url in urls]
        self._servers = {server.url: server for server in servers}
        self._options = options
        self._names = (model, adapter)
        self.hedging = Hedging(options.hedge_share)
        self._verified: VerifiedServer | None = None
        self._server_up = asyncio.Event()  # replaced whenever a server takes prompts again
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._closed = False

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
        """The answer of any server.

        Raises PromptTooLong, EngineRefused and AnswerTokenMissing if the prompt or the model is at
        fault; EngineUnavailable, EngineOverloaded, EngineTimeout or ModelUnusable if no server
        takes the prompt.
        """
        key = next(iter(request.image_ids), None)
        retry = RetryState(self._options)
        while True:
            loads = self._loads(retry)
            if not loads:
                await self._wait(retry)
                continue
            server = self._servers[choose_server(key, loads)]
            try:
                return await self._answer(server, request, retry)
            except AttemptFailed as failure:
                if retry.is_overdue():
                    raise failure.error from failure

    async def close(self) -> None:
        """Stop the probes; prompts in flight get EngineUnavailable."""
        self._closed = True
        for server in self._servers.values():
            server.mark_down(_closed())
        self._server_up.set()
        probes = list(self._probes.values())
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        for server in self._servers.values():
            await server.close()

    async def unload_adapter(self) -> None:
        """Make the servers give up the adapter, if this pool made them load it."""
        _, adapter = self._names
        if isinstance(adapter, RuntimeAdapter) and self.verified.weights.adapter == adapter.name:
            await asyncio.gather(
                *(server.unload_adapter(adapter.name) for server in self._servers.values())
            )

    # --- one try ---------------------------------------------------------------------------------

    async def _answer(self, server: Server, request: ChatRequest[T], retry: RetryState) -> T:
        """The answer of this server, or of a second one if this one is late."""
        if not request.may_be_hedged or len(self._servers) == 1:
            return await self._try(server, request, retry)
        hedging, clock = self.hedging, asyncio.get_running_loop().time
        hedging.note_prompt()
        started_at = clock()
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
        hedging.note_answer(clock() - started_at)
        return answer

    def _hedge(
        self, late: Server, request: ChatRequest[T], retry: RetryState
    ) -> Coroutine[Any, Any, T] | None:
        """The same request to the least loaded server, if that is less loaded than the late one."""
        loads = {url: load for url, load in self._loads(retry).items() if load < late.load}
        if not loads or self.hedging.late_after_seconds is None:
            return None
        self.hedging.spend()
        return self._try(self._servers[choose_server(None, loads)], request, retry)

    async def _try(self, server: Server, request: ChatRequest[T], retry: RetryState) -> T:
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

    def _loads(self, retry: RetryState) -> dict[str, int]:
        """The loads of the servers that may take this prompt, by URL."""
        return {
            url: server.load
            for url, server in self._servers.items()
            if server.obstacle is None and url not in retry.failed
        }

    async def _wait(self, retry: RetryState) -> None:
        """Wait until a server is up or another attempt is due; raises when patience is over."""
        if self._closed:
            raise _closed()
        if not retry.may_wait():
            raise retry.error or self._summarize_problems()
        now = asyncio.get_running_loop().time()
        in_use = [each for each in self._servers.values() if each.problem is None]
        free_in = min((each.busy_until - now for each in in_use), default=0.0)
        await retry.pause(self._server_up, at_least_seconds=free_in)

    def _summarize_problems(self) -> EngineError:
        """The only problem, or all of them in one error of the first one's type."""
        obstacles = [server.obstacle for server in self._servers.values()]
        problems = [each for each in obstacles if each is not None]
        if len(problems) == 1:
            return copy_error(problems[0])
        listed = "; ".join(str(problem) for problem in problems)
        return type(problems[0])(f"none of {len(problems)} servers takes prompts: {listed}")

    def _note(self, server: Server, failure: AttemptFailed) -> None:
        if failure.kind == "busy":
            now = asyncio.get_running_loop().time()
            server.busy_until = max(server.busy_until, now + failure.retry_after_seconds)
        elif failure.kind == "broken":
            server.num_broken_in_a_row += 1
        if failure.kind == "down":
            self._mark_down(server, failure.error)
        elif server.num_broken_in_a_row >= MAX_BROKEN:
            self._mark_down(server, failure.error, abandon=False)

    # --- in use, left out, back ------------------------------------------------------------------

    async def connect(self) -> None:
        """Check every server. One that does not answer is marked down, if another one answers.

        Raises EngineUnavailable if no server answers while patience lasts, ModelUnusable if one
        serves other models or they disagree, and what `Server.check` raises.
        """
        retry, is_told = RetryState(self._options), False
        while True:
            checks = await asyncio.gather(
                *(server.check(*self._names) for server in self._servers.values()),
                return_exceptions=True,
            )
            for check in checks:
                if isinstance(check, BaseException) and not isinstance(check, _TEMPORARY):
                    raise check
            if any(not isinstance(check, BaseException) for check in checks):
                break
            if not retry.may_wait():
                raise _no_server_answers(checks)
            if not is_told:
                log.warning("servers_awaited", error=str(_no_server_answers(checks)))
                is_told = True
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
        """ModelUnusable if it differs from the servers that were marked up before."""
        if self._verified is None:
            self._verified = verified
        if verified != self._verified:
            raise ModelUnusable(
                f"the server at {server.url} serves {verified.difference(self._verified)} as the "
                "others; start all with the same model, adapter and options"
            )
        server.mark_up(verified)

    def _mark_down(self, server: Server, problem: EngineError, *, abandon: bool = True) -> None:
        """Probe the server until it is up; `abandon` moves its prompts to other servers."""
        if self._closed:
            return
        server.mark_down(problem, abandon=abandon)
        if server.url in self._probes:
            return
        log.warning("server_marked_down", url=server.url, error=str(problem))
        self._probes[server.url] = asyncio.create_task(self._probe_until_up(server))

    async def _probe_until_up(self, server: Server) -> None:
        """Probe with growing pauses.

        A server that came back before and answered no prompt starts with a longer pause.
        """
        num_failures, probe_seconds = server.breaker.num_failed_returns, PROBE_SECONDS
        if num_failures:
            await asyncio.sleep(_pause_seconds(num_failures + 1, longest=LONGEST_PROBE_SECONDS))
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
            num_failures += 1
            await asyncio.sleep(_pause_seconds(num_failures, longest=LONGEST_PROBE_SECONDS))
            probe_seconds = min(2 * probe_seconds, CHECK_SECONDS)
        del self._probes[server.url]
        log.info("server_marked_up", url=server.url)
        self._notify_waiters()

    def _notify_waiters(self) -> None:
        self._server_up.set()
        self._server_up = asyncio.Event()


def _pause_seconds(num_failures: int, *, longest: float) -> float:
    return jittered(
        growing_pause(num_failures, first_seconds=FIRST_RETRY_SECONDS, longest_seconds=longest)
    )


def _closed() -> EngineUnavailable:
    return EngineUnavailable("the engine is closed")


def _no_server_answers(checks: Sequence[object]) -> EngineUnavailable:
    problems = "; ".join(str(check) for check in checks)
    return EngineUnavailable(
        f"no vLLM server answers at the given addresses ({problems}); start one with `msr "
        "serve-model`, or use --engine local"
    )
