"""Metrics and traces around any engine: each prompt is counted, timed and traced.

engine = instrumented(await open_engine(...), EngineMetrics(registry))
"""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.core.errors import EngineError
from services.core.prompts import GenerationLimits, Messages
from services.core.scoring import AnswerLogprobs
from services.engines import token_usage
from services.engines.contract import AdapterHost, Engine, EngineIdentity, Scorer
from services.telemetry import tracing

T = TypeVar("T")
Verb = Literal["generate", "score"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class EngineMetrics:
    """Metrics of the prompts that this process sends to its engine."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Every instrument starts at zero."""
        self.prompts = Counter(
            "msr_engine_prompts",
            "Prompts sent to the model, by what came of them: answered, cancelled or an error",
            ["verb", "outcome"],
            registry=registry,
        )
        self.prompt_seconds = Histogram(
            "msr_engine_prompt_seconds",
            "Time from a prompt to its answer, waiting and trying again included",
            ["verb"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.tokens = Counter(
            "msr_engine_tokens",
            "Tokens of answered prompts: read (prompt), of these cached, written (generated)",
            ["verb", "kind"],
            registry=registry,
        )
        self.shortened = Gauge(
            "msr_prompts_shortened",
            "Prompts whose texts were cut, because the model takes no longer ones",
            registry=registry,
        )
        self._engines: list[Engine] = []
        self.shortened.set_function(lambda: sum(each.num_shortened for each in self._engines))

    def watch(self, engine: Engine) -> None:
        """Count this engine's shortened prompts too: a process may have a writer of its own."""
        self._engines.append(engine)


def instrumented(engine: Engine, metrics: EngineMetrics) -> "InstrumentedEngine":
    """The engine with metrics. It is an AdapterHost if `engine` is; closing it closes `engine`."""
    kind = InstrumentedHost if isinstance(engine, AdapterHost) else InstrumentedEngine
    return kind(engine, metrics)


class InstrumentedEngine:
    """Implements `contract.Engine` by another engine, and measures its prompts."""

    def __init__(self, engine: Engine, metrics: EngineMetrics) -> None:
        """Use `instrumented`."""
        self.identity = engine.identity
        self._engine = engine
        self._metrics = metrics
        metrics.watch(engine)

    @property
    def num_shortened(self) -> int:
        """See `contract.Engine.num_shortened`."""
        return self._engine.num_shortened

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        """See `contract.Engine.generate`."""
        return await self.measured("generate", self._engine.generate(messages, limits))

    async def score(self, messages: Messages) -> AnswerLogprobs:
        """See `contract.Engine.score`."""
        return await self.measured("score", self._engine.score(messages))

    async def close(self) -> None:
        """See `contract.Engine.close`."""
        await self._engine.close()

    async def measured(self, verb: Verb, call: Awaitable[T]) -> T:
        """What `call` gives, counted, timed and traced."""
        started = time.perf_counter()
        outcome = "crashed"
        with tracing.span(f"engine {verb}", kind="CLIENT") as span, token_usage.counting() as cost:
            try:
                answer = await call
                outcome = "answered"
            except EngineError as error:
                outcome = type(error).__name__
                raise
            except asyncio.CancelledError:
                outcome = "cancelled"
                raise
            finally:
                self._metrics.prompts.labels(verb, outcome).inc()
                self._metrics.prompt_seconds.labels(verb).observe(time.perf_counter() - started)
            tokens = {
                "prompt": cost.prompt_tokens,
                "cached": cost.cached_tokens,
                "generated": cost.generated_tokens,
            }
            for kind, number in tokens.items():
                self._metrics.tokens.labels(verb, kind).inc(number)
            span.note(**{f"{kind}_tokens": number for kind, number in tokens.items()})
        return answer


class InstrumentedHost(InstrumentedEngine):
    """Implements `contract.AdapterHost` too: prompts of its adapters count as well."""

    async def load_adapter(self, folder: str) -> Scorer:
        """See `contract.AdapterHost.load_adapter`."""
        return _InstrumentedScorer(self, await self._host.load_adapter(folder))

    async def unload_adapter(self, scorer: Scorer) -> None:
        """See `contract.AdapterHost.unload_adapter`."""
        await self._host.unload_adapter(
            scorer.behind if isinstance(scorer, _InstrumentedScorer) else scorer
        )

    @property
    def _host(self) -> AdapterHost:
        assert isinstance(self._engine, AdapterHost)
        return self._engine


@dataclass(frozen=True, slots=True)
class _InstrumentedScorer:
    """Implements `contract.Scorer` by another scorer."""

    engine: InstrumentedEngine
    behind: Scorer

    @property
    def identity(self) -> EngineIdentity:
        return self.behind.identity

    async def score(self, messages: Messages) -> AnswerLogprobs:
        return await self.engine.measured("score", self.behind.score(messages))


def unwrapped(engine: Engine) -> Engine:
    """The engine behind the metrics, for what it offers beyond the contract."""
    return engine._engine if isinstance(engine, InstrumentedEngine) else engine
