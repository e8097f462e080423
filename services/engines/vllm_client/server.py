"""One vLLM server as we see it: what it serves, whether it is in use, which pictures it holds.

A server never decides where a prompt goes next; it says what went wrong, as an AttemptFailed, and
`failover.py` decides.
"""

import asyncio
import contextlib
import json
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import httpx

from services.core.errors import (
    AdapterRefused,
    AnswerTokenMissing,
    ArtifactMismatch,
    EngineError,
    EngineOverloaded,
    EngineRefused,
    EngineTimeout,
    EngineUnavailable,
    ModelUnusable,
)
from services.core.scoring import AnswerTokens
from services.engines.contract import EngineIdentity
from services.engines.vllm_client import hedging
from services.engines.vllm_client.chat_requests import (
    ChatRequest,
    InvalidResponse,
    answer_tokens,
    probe_prompts,
    score_request,
    tokens_request,
)
from services.engines.vllm_client.circuit_breaker import CircuitBreaker
from services.engines.vllm_client.model_list import ModelList, Weights, runtime_name
from services.engines.vllm_client.server_http import (
    AttemptFailed,
    CacheMiss,
    ConnectionLost,
    PromptTooLong,
    ServerHttp,
    invalid_response,
    unreachable,
)

T = TypeVar("T")

# Ids remembered per server, some 10 MB of them. One too many or too few costs a request or a send.
MAX_HELD_PICTURES = 65_536
# A check asks for one generated token, behind whatever else the server computes.
CHECK_SECONDS = 30.0
# After this silence a server is asked for its health, and has this long to answer.
SILENT_SECONDS = 1.0
HEALTH_SECONDS = 3.0
# vLLM's routes, there only where it may load adapters; else the framework says that it has none.
LOAD_ADAPTER, UNLOAD_ADAPTER = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
NO_SUCH_ROUTE = "Not Found"
# A server that was silent so long can have been restarted with other weights: that takes longer.
IDLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class VerifiedServer:
    """What a server turned out to serve. ServerPool must agree, but for how they describe it."""

    weights: Weights
    answers: AnswerTokens
    description: str = field(compare=False)

    def difference(self, other: "VerifiedServer") -> str:
        """What differs: `the name in this one, not in the other`."""
        return ", ".join(
            f"{name} {mine!r}, not {theirs!r}"
            for (name, mine), (_, theirs) in zip(self._facts(), other._facts(), strict=True)
            if mine != theirs
        )

    def _facts(self) -> list[tuple[str, object]]:
        weights = self.weights
        return [
            ("the name", weights.model),
            ("the base model", weights.identity.model),
            ("the adapter's name", weights.adapter),
            ("the adapter", weights.identity.adapter),
            ("the calibration", weights.identity.calibration),
            ("a --max-model-len of", weights.max_tokens),
            ("the answer tokens", (self.answers.yes, self.answers.no)),
        ]


@dataclass(frozen=True, slots=True)
class RuntimeAdapter:
    """An adapter that a server is told to load if it does not serve it already.

    The server sees the same folder under the same path.
    """

    folder: str
    identity: EngineIdentity

    @property
    def name(self) -> str:
        """Under which servers load it."""
        return runtime_name(self.folder, self.identity.adapter)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long one prompt may take, how long it waits for a server that takes it, how many may be
    at one server at once, and which share may be asked of a second one.
    """

    timeout_seconds: float
    patience_seconds: float
    max_in_flight: int
    hedge_share: float = hedging.SHARE


class Server:
    """One server. It starts left out; `check` and `mark_up` bring it into use."""

    def __init__(
        self, url: str, bounds: Bounds, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """`transport` replaces the network."""
        self._http = ServerHttp(url, transport)
        self.url = self._http.url
        self.problem: EngineError | None = EngineUnavailable(f"{self.url} is not verified yet")
        self.num_answered = 0
        self.num_broken_in_a_row = 0
        self.busy_until = -math.inf
        self.breaker = CircuitBreaker()
        self._timeout_seconds = bounds.timeout_seconds
        self._on_unresponsive: Callable[[Server, EngineError], None] = Server.mark_down
        self._slots = asyncio.Semaphore(bounds.max_in_flight)
        # Prompts that wait or run here, each with the problem for which it has to leave.
        self._attempts: dict[asyncio.Timeout, EngineError | None] = {}
        self._held: OrderedDict[str, None] = OrderedDict()
        self._verified: VerifiedServer | None = None
        self._verifying = asyncio.Lock()
        self._silence_timer: asyncio.TimerHandle | None = None
        self._health_check: asyncio.Task[None] | None = None

    @property
    def load(self) -> int:
        """How many prompts wait for a slot or have one."""
        return len(self._attempts)

    @property
    def obstacle(self) -> EngineError | None:
        """Why it takes no prompt now; None if it does.

        One that came back takes a single prompt until it has answered that: all at once would keep
        a server that is still slow busy with what nobody waits for any more, its next probe too.
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
        """The answer by `deadline` (the loop's clock; it counts the wait for a slot), or within
        `timeout_seconds` after a slot is free if it is None.

        Raises AttemptFailed and PromptTooLong; EngineRefused and AnswerTokenMissing if another
        server would fail as well.
        """
        attempt, sent_at = asyncio.timeout_at(deadline), _now()
        abandoned = False
        self._attempts[attempt] = None
        self._watch_silence()
        try:
            async with attempt, self._slots:
                if deadline is None:
                    attempt.reschedule(_now() + self._timeout_seconds)
                return await self._ask(request)
        except TimeoutError as error:
            if (problem := self._attempts[attempt]) is not None:
                raise AttemptFailed("left", copy_error(problem)) from error
            abandoned = True
            late = f"{self.url} gave no answer in {self._timeout_seconds:g} s; is it overloaded?"
            raise AttemptFailed("late", EngineTimeout(late)) from error
        except asyncio.CancelledError:  # whoever asked has no more time
            abandoned = True
            raise
        finally:
            del self._attempts[attempt]
            if abandoned:
                self._record_abandoned(sent_at)

    def mark_up(
        self, verified: VerifiedServer, *, on_unresponsive: Callable[["Server", EngineError], None]
    ) -> None:
        """Use the server from now on: it passed its checks.

        `on_unresponsive` hears of it when it neither answers prompts nor tells its health.
        """
        self._on_unresponsive = on_unresponsive
        self._verified = verified
        self.problem = None
        self.num_broken_in_a_row = 0
        self.breaker.admit()

    def mark_down(self, problem: EngineError, *, abandon: bool = True) -> None:
        """Use it no more until it is taken in; `abandon` also what waits or runs there."""
        self.problem = problem
        self.breaker.open()
        self._held.clear()  # if it comes back, then perhaps as another process
        for attempt in self._attempts if abandon else ():
            if not attempt.expired():
                self._attempts[attempt] = problem
                attempt.reschedule(_now())

    async def close(self) -> None:
        """Close the connections."""
        if self._silence_timer is not None:
            self._silence_timer.cancel()
        if self._health_check is not None:
            self._health_check.cancel()
            await asyncio.gather(self._health_check, return_exceptions=True)
        await self._http.close()

    async def _ask(self, request: ChatRequest[T]) -> T:
        await self._verify()
        try:
            return await self._send(request)
        except ConnectionLost:
            # The server may have closed a kept connection just then. It may also be another one.
            self._http.received_at = -math.inf
            await self._verify()
            try:
                return await self._send(request)
            except ConnectionLost as error:
                raise AttemptFailed("gone", unreachable(self.url, error)) from error

    async def _send(self, request: ChatRequest[T]) -> T:
        """Without the pictures that the server holds, and with them if it holds them no more."""
        picture_ids = request.picture_ids
        try:
            answer = await self._post(request, held=True)
        except CacheMiss:
            for each in picture_ids:
                self._held.pop(each, None)
            try:
                answer = await self._post(request, held=False)
            except CacheMiss as error:
                raise AttemptFailed("broken", invalid_response(self.url, error)) from error
        # Only now: a request that was sent before may still be on its way with the picture.
        for each in picture_ids:
            self._held[each] = None
            self._held.move_to_end(each)
        while len(self._held) > MAX_HELD_PICTURES:
            self._held.popitem(last=False)
        self.num_answered += 1
        self.num_broken_in_a_row = 0
        self.breaker.record_answer(_now())
        return answer

    async def _post(self, request: ChatRequest[T], *, held: bool) -> T:
        body = request.body(self._held if held else ())
        answer = await self._http.request_json("POST", request.path, body)
        try:
            return request.read(answer)
        except InvalidResponse as error:
            raise AttemptFailed("broken", invalid_response(self.url, error)) from error
        except AnswerTokenMissing as error:
            raise AnswerTokenMissing(f"{self.url}: {error}") from error

    # --- checks ----------------------------------------------------------------------------------

    async def check(
        self,
        model: str,
        adapter: str | RuntimeAdapter | None,
        *,
        within_seconds: float = CHECK_SECONDS,
    ) -> VerifiedServer:
        """What it serves under these names, found by asking, one answer to a prompt included.

        Raises EngineUnavailable, EngineOverloaded or EngineTimeout if it gives no answer,
        ModelUnusable and ArtifactMismatch if it has other models, AnswerTokenMissing if they have
        no Yes and No, AdapterRefused if it loads no adapters.
        """
        wanted = adapter.identity if isinstance(adapter, RuntimeAdapter) else None
        try:
            async with asyncio.timeout(min(within_seconds, self._timeout_seconds)):
                served = await self._read_served()
                if isinstance(adapter, RuntimeAdapter):
                    served, adapter = await self._with_adapter(served, adapter)
                # Off the loop: without labels it reads checkpoint folders.
                weights = await asyncio.to_thread(served.choose, model, adapter)
                prompts = probe_prompts()
                tokens = {
                    word: await self._post(tokens_request(weights.scorer, prompt), held=False)
                    for word, prompt in prompts.items()
                }
                answers = answer_tokens(tokens)
                await self._post(score_request(weights.scorer, prompts[None], answers), held=False)
        except AttemptFailed as failure:
            raise failure.error from failure
        except ConnectionLost as error:
            raise unreachable(self.url, error) from error
        except (PromptTooLong, EngineRefused) as error:
            remedy = "start vLLM 0.32 or newer there, with room for a prompt in --max-model-len"
            raise ModelUnusable(f"{error}; {remedy}") from error
        except TimeoutError as error:
            raise EngineTimeout(
                f"{self.url} accepts connections and does not answer; restart the server there"
            ) from error
        self.num_answered += 1
        if wanted not in (None, weights.identity):
            raise ArtifactMismatch(
                f"{self.url} serves {weights.identity} as {adapter!r}, here lies {wanted}; let "
                "both see the same folder, and never write other weights into one that is in use"
            )
        return VerifiedServer(weights, answers, served.describe(weights))

    async def _with_adapter(
        self, served: ModelList, adapter: RuntimeAdapter
    ) -> tuple[ModelList, str]:
        """What it serves once it has the adapter, and under which name."""
        if (name := served.name_of(adapter.identity.adapter)) is not None:
            return served, name
        if served.names_adapter(adapter.name):
            return served, adapter.name
        body = {"lora_name": adapter.name, "lora_path": adapter.folder}
        done, said = await self._http.post_command(LOAD_ADAPTER, json.dumps(body).encode())
        served = await self._read_served()
        # Another process may have told it in the same moment: what it lists now counts.
        if served.names_adapter(adapter.name):
            return served, adapter.name
        if NO_SUCH_ROUTE in said:
            # Told to whoever asked for the adapter, so without the server's address.
            raise AdapterRefused(
                "a model server loads no adapters while it runs; start all of them with `msr "
                "serve-model --load-adapters-from FOLDER`, or with this adapter by --adapter"
            )
        problem = "lists none of that name" if done else said[:300]
        raise ModelUnusable(f"{self.url} did not load the adapter {adapter.name}: {problem}")

    async def unload(self, name: str) -> None:
        """Tell the server to give up an adapter that it loaded; if it is away, it has none."""
        with contextlib.suppress(AttemptFailed, ConnectionLost, TimeoutError):
            async with asyncio.timeout(min(CHECK_SECONDS, self._timeout_seconds)):
                await self._http.post_command(
                    UNLOAD_ADAPTER, json.dumps({"lora_name": name}).encode()
                )

    async def _verify(self) -> None:
        """After a silence, see whether it still describes itself as when it was verified."""
        async with self._verifying if self._is_idle() else contextlib.nullcontext():
            if not self._is_idle():
                return
            try:
                served = await self._read_served()
            except ConnectionLost as error:
                raise AttemptFailed("gone", unreachable(self.url, error)) from error
            except EngineUnavailable as error:
                raise AttemptFailed("gone", error) from error
            assert self._verified is not None
            if served.describe(self._verified.weights) != self._verified.description:
                changed = f"{self.url} lists other models or weights than when it was connected to"
                raise AttemptFailed(
                    "gone", ModelUnusable(f"{changed}; start what was there, or reconnect")
                )

    async def _read_served(self) -> ModelList:
        return ModelList(self.url, await self._http.request_json("GET", "/v1/models"))

    def _is_idle(self) -> bool:
        return _now() - self._http.received_at > IDLE_SECONDS

    # --- silence ---------------------------------------------------------------------------------

    def _record_abandoned(self, sent_at: float) -> None:
        if self.problem is None and self.breaker.record_abandoned(sent_at, _now()):
            silent = f"{self.url} answers no prompt in the time that requests have"
            self._on_unresponsive(self, EngineTimeout(f"{silent}; see its load, or restart it"))

    def _watch_silence(self) -> None:
        if self._silence_timer is None:
            wait = min(SILENT_SECONDS, self._timeout_seconds / 4)
            self._silence_timer = asyncio.get_running_loop().call_later(
                wait, self._check_silence, wait
            )

    def _check_silence(self, wait: float) -> None:
        self._silence_timer = None
        http = self._http
        silent = http.sent_at > http.received_at and _now() - http.received_at > wait
        if self.problem is None and silent and self._health_check is None:
            self._health_check = asyncio.create_task(self._ask_for_health())
        elif self._attempts:
            self._watch_silence()

    async def _ask_for_health(self) -> None:
        wait = min(HEALTH_SECONDS, self._timeout_seconds / 4)
        if not await self._http.is_healthy(wait):
            hangs = f"{self.url} accepts prompts and does not answer; restart the server there"
            self._on_unresponsive(self, EngineTimeout(hangs))
        self._health_check = None
        if self._attempts:
            self._watch_silence()


def copy_error(error: EngineError) -> EngineError:
    """The same for another prompt; one object raised again and again would gather tracebacks."""
    return type(error)(str(error))


def _now() -> float:
    return asyncio.get_running_loop().time()
