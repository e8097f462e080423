"""One vLLM server: whether it takes prompts, which prompts it has, which images it holds.

A server raises AttemptFailed when an attempt fails. The pool decides where the prompt goes next
(`server_pool.py`).
"""

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import TypeVar

from cachetools import LRUCache

from services.core.errors import (
    EngineError,
    EngineOverloaded,
    EngineTimeout,
    EngineUnavailable,
    ModelUnusable,
)
from services.engines.contract import EngineOptions
from services.engines.vllm_client.chat_requests import ChatRequest
from services.engines.vllm_client.circuit_breaker import CircuitBreaker
from services.engines.vllm_client.server_check import (
    UNLOAD_ADAPTER,
    RuntimeAdapter,
    VerifiedServer,
    read_models,
    verify_server,
)
from services.engines.vllm_client.server_http import (
    AttemptFailed,
    CacheMiss,
    ConnectionLost,
    Send,
    ServerHttp,
)

T = TypeVar("T")

# Ids remembered per server, some 10 MB of them. A wrong one costs one request more.
MAX_HELD_IMAGES = 65_536
# A check requests one generated token, which waits behind the prompts that the server has.
CHECK_SECONDS = 30.0
# After this silence a server is asked for its health, and has this long to answer.
SILENT_SECONDS = 1.0
HEALTH_SECONDS = 3.0
# A restart with other weights takes longer than this, so only a longer silence needs a look.
IDLE_SECONDS = 10.0


class Server:
    """One server. It starts down; `check` and `mark_up` bring it into use."""

    def __init__(
        self,
        url: str,
        options: EngineOptions,
        send: Send,
        *,
        on_unresponsive: Callable[["Server", EngineError], None],
    ) -> None:
        """`on_unresponsive` is called when it answers neither prompts nor health checks.

        InputError for a `url` that is no server's address.
        """
        self._http = ServerHttp(url, send)
        self.url = self._http.url
        # Why the server is down; None while it is up.
        self.problem: EngineError | None = EngineUnavailable(f"{self.url} is not checked yet")
        self.num_answered = 0
        self.num_broken_in_a_row = 0
        self.busy_until = -math.inf
        self.breaker = CircuitBreaker()
        self._timeout_seconds = options.timeout_seconds
        self._texts_only = options.texts_only
        self._on_unresponsive = on_unresponsive
        self._slots = asyncio.Semaphore(options.max_in_flight)
        # Prompts that wait or run here, each with the problem for which it has to leave.
        self._attempts: dict[asyncio.Timeout, EngineError | None] = {}
        self._held: LRUCache[str, None] = LRUCache(MAX_HELD_IMAGES)
        self._verified: VerifiedServer | None = None
        self._verifying = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None

    @property
    def load(self) -> int:
        """How many prompts wait for a slot or have one."""
        return len(self._attempts)

    @property
    def obstacle(self) -> EngineError | None:
        """Why the server takes no prompt now; None if it does.

        A server that came back takes one prompt until it has answered that. Many at once would keep
        a server that is still slow busy with abandoned prompts, and delay its next check.
        """
        if self.problem is not None:
            return self.problem
        if self.breaker.state == "half-open" and self._attempts:
            return EngineUnavailable(f"{self.url} is back and has yet to answer its first prompt")
        if (rest_seconds := self.busy_until - _now()) > 0:
            return EngineOverloaded(f"{self.url} asks for {rest_seconds:.0f} s of rest")
        return None

    # --- prompts ---------------------------------------------------------------------------------

    async def ask(self, request: ChatRequest[T], deadline: float | None) -> T:
        """The answer by `deadline` (a time of the event loop, the wait for a slot included).

        With None: within `timeout_seconds` after a slot is free. Raises AttemptFailed and
        PromptTooLong; EngineRefused and AnswerTokenMissing if another server would fail as well.
        """
        attempt, started_at = asyncio.timeout_at(deadline), _now()
        abandoned = False
        self._attempts[attempt] = None
        if self._watch is None:
            self._watch = asyncio.create_task(self._watch_silence())
        try:
            async with attempt, self._slots:
                if deadline is None:
                    attempt.reschedule(_now() + self._timeout_seconds)
                return await self._ask(request)
        except TimeoutError as error:
            if (problem := self._attempts[attempt]) is not None:
                raise AttemptFailed("moved", copy_error(problem)) from error
            abandoned = True
            late = f"{self.url} gave no answer in {self._timeout_seconds:g} s; is it overloaded?"
            raise AttemptFailed("timeout", EngineTimeout(late)) from error
        except asyncio.CancelledError:  # the caller has no more time
            abandoned = True
            raise
        finally:
            del self._attempts[attempt]
            if abandoned:
                self._note_abandoned(started_at)

    async def _ask(self, request: ChatRequest[T]) -> T:
        await self._verify_if_idle()
        try:
            return await self._send(request)
        except ConnectionLost:
            # The server may have closed an idle connection just then, or may have been restarted.
            self._http.received_at = -math.inf
            await self._verify_if_idle()
            return await self._send(request)

    async def _send(self, request: ChatRequest[T]) -> T:
        """Leaves out the images that the server holds, and sends them if it lost them."""
        image_ids = request.image_ids
        try:
            answer = await self._http.ask(request, self._held)
        except CacheMiss:
            for each in image_ids:
                self._held.pop(each, None)
            answer = await self._http.ask(request)
        # Not earlier: an earlier request may still be on its way with the image.
        for each in image_ids:
            self._held[each] = None
        self.num_answered += 1
        self.num_broken_in_a_row = 0
        self.breaker.record_answer(_now())
        return answer

    # --- up and down -----------------------------------------------------------------------------

    async def check(
        self,
        model: str,
        adapter: str | RuntimeAdapter | None,
        *,
        within_seconds: float = CHECK_SECONDS,
    ) -> VerifiedServer:
        """What the server serves under these names. Raises what `verify_server` raises."""
        within_seconds = min(within_seconds, self._timeout_seconds)
        verified = await verify_server(
            self._http,
            model,
            adapter,
            within_seconds=within_seconds,
            texts_only=self._texts_only,
        )
        self.num_answered += 1
        return verified

    def mark_up(self, verified: VerifiedServer) -> None:
        """Use the server from now on: it passed its checks."""
        self._verified = verified
        self.problem = None
        self.num_broken_in_a_row = 0
        self.breaker.admit()

    def mark_down(self, problem: EngineError, *, abandon: bool = True) -> None:
        """Use the server no more until it is marked up.

        `abandon` also ends the attempts that wait or run there.
        """
        self.problem = problem
        self.breaker.open()
        self._held.clear()  # it may come back as another process
        for attempt in self._attempts if abandon else ():
            if not attempt.expired():
                self._attempts[attempt] = problem
                attempt.reschedule(_now())

    async def unload_adapter(self, name: str) -> None:
        """Make the server give up an adapter that it loaded; one that is down has lost it."""
        with contextlib.suppress(AttemptFailed, TimeoutError):
            async with asyncio.timeout(min(CHECK_SECONDS, self._timeout_seconds)):
                await self._http.post_command(UNLOAD_ADAPTER, {"lora_name": name})

    async def close(self) -> None:
        """End the watch."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def _verify_if_idle(self) -> None:
        """After a silence, see whether the server still describes itself as it did."""
        async with self._verifying if self._is_idle() else contextlib.nullcontext():
            if not self._is_idle():
                return
            try:
                served = await read_models(self._http)
            except EngineUnavailable as error:
                raise AttemptFailed("down", error) from error
            assert self._verified is not None
            if served.describe(self._verified.weights) != self._verified.description:
                changed = ModelUnusable(
                    f"{self.url} lists other models or weights than when it was connected to; "
                    "start what was there, or reconnect"
                )
                raise AttemptFailed("down", changed)

    def _is_idle(self) -> bool:
        return _now() - self._http.received_at > IDLE_SECONDS

    # --- silence ---------------------------------------------------------------------------------

    def _note_abandoned(self, started_at: float) -> None:
        if self.problem is None and self.breaker.record_abandoned(started_at, _now()):
            silent = f"{self.url} answers no prompt in the time that requests have"
            self._on_unresponsive(self, EngineTimeout(f"{silent}; see its load, or restart it"))

    async def _watch_silence(self) -> None:
        """While there are prompts: see whether the server is alive when none is answered."""
        http, wait = self._http, min(SILENT_SECONDS, self._timeout_seconds / 4)
        while self._attempts:
            await asyncio.sleep(wait)
            silent = http.sent_at > http.received_at and _now() - http.received_at > wait
            if self.problem is not None or not silent:
                continue
            if not await http.is_healthy(min(HEALTH_SECONDS, self._timeout_seconds / 4)):
                hangs = f"{self.url} accepts prompts and does not answer; restart the server there"
                self._on_unresponsive(self, EngineTimeout(hangs))
        self._watch = None


def copy_error(error: EngineError) -> EngineError:
    """The same error for another prompt; one object raised twice would gather tracebacks."""
    return type(error)(str(error))


def _now() -> float:
    return asyncio.get_running_loop().time()
