"""The `vllm` engine: an HTTP client of one or many vLLM OpenAI-compatible servers.

The servers batch, cache prefixes and hold the weights. An adapter is chosen by its model name; one
that the servers do not serve yet is loaded from a folder that they see too. `chat_requests.py` has
the requests, `model_list.py` what a server says of itself, `server.py` one server, `routing.py` the
choice of a server, `server_pool.py` what happens when one fails.

The transport is aiohttp; `msr bench engine-client` measures its CPU time per request.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from services.core.errors import AdapterRefused, ArtifactMismatch, EngineRefused, ModelUnusable
from services.core.prompts import GenerationLimits, Messages
from services.core.scoring import AnswerLogprobs
from services.engines.checkpoints import identify_servable, only_scores
from services.engines.contract import (
    AS_SERVED,
    BreakerState,
    EngineIdentity,
    EngineOptions,
    Scorer,
)
from services.engines.prompt_fitting import shorten_to_fit_remotely
from services.engines.vllm_client.chat_requests import (
    ChatRequest,
    score_request,
    text_request,
    tokens_request,
)
from services.engines.vllm_client.server_check import RuntimeAdapter
from services.engines.vllm_client.server_http import PromptTooLong, Send, open_session, sender
from services.engines.vllm_client.server_pool import ServerPool

T = TypeVar("T")

_BY_WEIGHT: tuple[BreakerState, ...] = ("closed", "half-open", "open")


async def open_engine(options: EngineOptions) -> "VllmEngine":
    """See `open_engine.open_engine`."""
    if not options.urls and not options.recommender_urls:
        raise ModelUnusable(
            "the vllm engine needs the address of a server: give --url, or set MSR_VLLM_URLS"
        )
    return await VllmEngine.connect(options)


@dataclass(frozen=True, slots=True)
class _LoadedAdapter:
    """Implements `contract.Scorer`: another adapter on the same servers."""

    engine: "VllmEngine"
    pool: ServerPool
    identity: EngineIdentity

    async def score(self, messages: Messages) -> AnswerLogprobs:
        return await self.engine._score_by(self.pool, messages)


class VllmEngine:
    """Implements `contract.Engine`, `Replicated` and `AdapterHost`. Open it with `connect`."""

    def __init__(
        self,
        options: EngineOptions,
        send: Send,
        writers: ServerPool | None,
        scorers: ServerPool,
        identity: EngineIdentity,
        resources: contextlib.AsyncExitStack,
    ) -> None:
        """Use `connect`.

        The base model writes texts, the recommender scores, often on the same servers. `resources`
        holds what `close` closes.
        """
        self.identity = identity
        self.num_shortened = 0
        self._options = options
        self._send = send
        self._writers = writers
        self._scorers = scorers
        self._resources = resources
        self._loaded: set[ServerPool] = set()
        # Also those of adapters that were unloaded: counts never fall.
        self._hedging = [scorers.hedging]

    @classmethod
    async def connect(cls, options: EngineOptions, *, send: Send | None = None) -> "VllmEngine":
        """Check what the servers serve under these names and find their answer tokens.

        The servers at `recommender_urls`, if there are any, hold a merged checkpoint named
        `recommender`, and all scores go there. `send` replaces the network.

        Raises EngineUnavailable if no server answers, ModelUnusable if one serves other models,
        ArtifactMismatch if the adapter belongs to other definitions or to another base model,
        AnswerTokenMissing if there is no Yes and No.
        """
        async with contextlib.AsyncExitStack() as resources:
            if send is None:
                send = sender(await resources.enter_async_context(open_session()))

            async def open_pool(urls: Sequence[str], model: str, adapter: str | None) -> ServerPool:
                pool = ServerPool(urls, options, send, model=model, adapter=adapter)
                resources.push_async_callback(pool.close)
                await pool.connect()
                return pool

            if options.recommender_urls:
                name = options.recommender or AS_SERVED
                scorers = await open_pool(options.recommender_urls, name, None)
                writers = (
                    await open_pool(options.urls, options.model, None) if options.urls else None
                )
            else:
                scorers = writers = await open_pool(options.urls, options.model, options.adapter)
            identity = _identity(writers, scorers)
            return cls(options, send, writers, scorers, identity, resources.pop_all())

    @property
    def breaker_states(self) -> Mapping[str, BreakerState]:
        """See `contract.Replicated.breaker_states`."""
        # Every adapter has a pool and so a breaker of its own; the worst state counts.
        states: dict[str, BreakerState] = {}
        for pool in {self._scorers, self._writers or self._scorers, *self._loaded}:
            for url, state in pool.breaker_states.items():
                states[url] = max(states.get(url, state), state, key=_BY_WEIGHT.index)
        return states

    @property
    def num_hedges(self) -> Mapping[Literal["won", "lost"], int]:
        """See `contract.Replicated.num_hedges`."""
        num_won = sum(each.num_won for each in self._hedging)
        return {"won": num_won, "lost": sum(each.num_hedged for each in self._hedging) - num_won}

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        """See `contract.Engine.generate`; ModelUnusable if only a merged checkpoint is served."""
        if self._writers is None:
            raise ModelUnusable(
                "no server writes texts: give the address of one that serves the base model"
            )
        verified = self._writers.verified
        if verified.weights.is_merged:
            raise only_scores(verified.weights.model)
        request = text_request(
            verified.weights.model,
            messages,
            limits,
            adds_special_tokens=verified.adds_special_tokens,
            by_writer=self._options.texts_only,
        )
        return await self._ask(self._writers, request)

    async def score(self, messages: Messages) -> AnswerLogprobs:
        """See `contract.Engine.score`."""
        return await self._score_by(self._scorers, messages)

    async def load_adapter(self, folder: str) -> Scorer:
        """See `contract.AdapterHost`.

        A server that comes back without the adapter loads it again; meanwhile the others answer.
        """
        if self._scorers is not self._writers or self._scorers.verified.weights.is_merged:
            raise AdapterRefused(
                "scores come from a merged checkpoint, which takes no adapter; serve the base "
                "model with adapters to change them while it runs"
            )
        identity = await asyncio.to_thread(identify_servable, folder, model=self.identity.model)
        model, adapter = self._options.model, RuntimeAdapter(folder, identity)
        pool = ServerPool(
            self._options.urls, self._options, self._send, model=model, adapter=adapter
        )
        try:
            await pool.connect()
        except BaseException:
            await pool.close()
            raise
        self._loaded.add(pool)
        self._hedging.append(pool.hedging)
        return _LoadedAdapter(self, pool, pool.verified.weights.identity)

    async def unload_adapter(self, scorer: Scorer) -> None:
        """See `contract.AdapterHost`.

        The servers give up an adapter that this engine made them load. If another process still
        uses it, they load it again at its next request.
        """
        if isinstance(scorer, _LoadedAdapter):
            self._loaded.discard(scorer.pool)
            await scorer.pool.unload_adapter()
            await scorer.pool.close()

    async def close(self) -> None:
        """Close the connections; prompts in flight get EngineUnavailable."""
        await asyncio.gather(*(pool.close() for pool in self._loaded))
        await self._resources.aclose()

    async def _score_by(self, pool: ServerPool, messages: Messages) -> AnswerLogprobs:
        verified = pool.verified
        if verified.answers is None:
            raise ModelUnusable(
                f"{verified.weights.model} was opened to write preferences only; score by another"
            )
        request = score_request(
            verified.weights.scorer,
            messages,
            verified.answers,
            adds_special_tokens=verified.adds_special_tokens,
        )
        return await self._ask(pool, request)

    async def _ask(self, pool: ServerPool, request: ChatRequest[T]) -> T:
        try:
            return await pool.ask(request)
        except PromptTooLong as error:
            shorter = await self._shorten(pool, request)
            if shorter is None:
                raise EngineRefused(
                    f"{error}; nothing of the prompt can be cut: use a smaller image, or start "
                    "the server with a larger --max-model-len"
                ) from error
        try:
            answer = await pool.ask(replace(request, messages=shorter))
        except PromptTooLong as error:
            raise EngineRefused(f"{error}; it was shortened already") from error
        self.num_shortened += 1
        return answer

    async def _shorten(self, pool: ServerPool, request: ChatRequest[T]) -> Messages | None:
        verified, model = pool.verified, request.options["model"]
        room = verified.weights.max_tokens - request.max_new_tokens

        async def fits(messages: Messages) -> bool:
            tokens = await pool.ask(
                tokens_request(
                    model,
                    messages,
                    adds_special_tokens=verified.adds_special_tokens,
                    by_writer=self._options.texts_only,
                )
            )
            return len(tokens) <= room

        return await shorten_to_fit_remotely(request.messages, fits)


def _identity(writers: ServerPool | None, scorers: ServerPool) -> EngineIdentity:
    scoring = scorers.verified.weights.identity
    if writers is None or writers is scorers:
        return scoring
    model = writers.verified.weights.identity.model
    if not scoring.adapter:  # a server that does not say what its checkpoint was merged from
        return replace(scoring, model=model, adapter=scoring.model)
    if scoring.model != model:
        raise ArtifactMismatch(
            f"the recommender was merged from the base model {scoring.model}, but texts are "
            f"written by {model}; serve the same base model, or merge the adapter into this one"
        )
    return scoring
