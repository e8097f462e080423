"""What an engine is: two verbs over chat messages, asynchronous, batched by the engine itself.

`generate` writes summaries and preferences; `score` answers Yes or No with log-probabilities of one
generated position. Decoding is greedy. What a prompt gets never depends on what else is in flight.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from services.core.drift import ScoreHistogram
from services.core.prompts import GenerationLimits, Messages
from services.core.scoring import NOT_CALIBRATED, AnswerLogprobs, Calibration
from services.engines.models.model_card import NO_CARD, ModelCard

# Stands for the name of the only model or adapter that a server serves.
AS_SERVED = "as-served"

# Of the scores, the share that may be sent to a second server.
HEDGE_SHARE = 0.05

# A server's circuit breaker: in use, down, or back and not yet trusted.
BreakerState = Literal["closed", "open", "half-open"]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What a deployment tells its engine; each kind uses what it needs.

    `model` and `adapter` are checkpoint and adapter folders, or the names under which the servers
    at `urls` serve them (AS_SERVED: whatever they serve). `recommender` is a merged checkpoint on
    servers of its own. With `texts_only` the engine writes texts and never scores, so that its
    model may be a text-only one. `timeout_seconds` bounds one prompt. `patience_seconds` is how
    long a prompt (and opening the engine) waits for a server that takes it; prompts of a patient
    engine also wait as long as needed for a free slot among the `max_in_flight` of each server.
    At most
    `hedge_share` of the scores are sent to a second server when the first is late.
    """

    model: str
    adapter: str | None = None
    urls: Sequence[str] = ()
    recommender: str | None = None
    recommender_urls: Sequence[str] = ()
    texts_only: bool = False
    timeout_seconds: float = 120.0
    patience_seconds: float = 0.0
    max_in_flight: int = 256
    hedge_share: float = HEDGE_SHARE


@dataclass(frozen=True, slots=True)
class EngineIdentity:
    """Which weights answer: the base model's fingerprint and the adapter's ("" without one).

    `model` goes into the fingerprint of summaries and preferences, `adapter` into score-cache keys.
    `calibration` turns the adapter's margins into P(Yes); its manifest has it.
    `validation_scores` is the histogram of P(Yes) over validation users, if it is known.
    `card` is the base model's.
    """

    model: str
    adapter: str
    calibration: Calibration = NOT_CALIBRATED
    # Not compared: of two servers with the same weights one may not know it.
    validation_scores: ScoreHistogram | None = field(default=None, compare=False)
    card: ModelCard = field(default=NO_CARD, compare=False)

    @property
    def name(self) -> str:
        """The base model's name for people; its fingerprint if it has none."""
        return self.card.name or self.model


class GeneratedText(str):
    """What a model wrote; `hit_limit`: the token limit ended it, and not the model."""

    __slots__ = ("hit_limit",)
    hit_limit: bool

    def __new__(cls, text: str, *, hit_limit: bool = False) -> "GeneratedText":
        """A text like any other."""
        made = super().__new__(cls, text)
        made.hit_limit = hit_limit
        return made


def hit_limit(text: str) -> bool:
    """Whether the token limit ended this answer of `Engine.generate`; False if it does not say."""
    return isinstance(text, GeneratedText) and text.hit_limit


class Scorer(Protocol):
    """Answers Yes or No: an engine, or another adapter on its base model."""

    @property
    def identity(self) -> EngineIdentity:
        """Which weights answer. It never changes."""
        ...

    async def score(self, messages: Messages) -> AnswerLogprobs:
        """Log-probabilities of the answer tokens at the first generated position, by the adapter
        if there is one.

        Raises AnswerTokenMissing besides what `Engine.generate` raises.
        """
        ...


class Engine(Scorer, Protocol):
    """Implemented by `LocalEngine`, `VllmEngine` and `in_process.VllmOfflineEngine`."""

    @property
    def num_shortened(self) -> int:
        """How many prompts since the engine opened had texts cut, because they were too long."""
        ...

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        """The base model's greedy answer, without special tokens, stripped; a `GeneratedText`.

        Raises EngineRefused, EngineTimeout, EngineOverloaded or EngineUnavailable.
        """
        ...

    async def close(self) -> None:
        """Free the weights or close the connections; waiting prompts get EngineUnavailable."""
        ...


@runtime_checkable
class Replicated(Protocol):
    """An engine of several servers that may fail one by one: `VllmEngine`."""

    @property
    def breaker_states(self) -> Mapping[str, BreakerState]:
        """The state of each server's circuit breaker, by URL."""
        ...

    @property
    def num_hedges(self) -> Mapping[Literal["won", "lost"], int]:
        """Scores sent to a second server: `won` if it answered first."""
        ...


@runtime_checkable
class AdapterHost(Protocol):
    """An engine that loads more adapters while it answers: `LocalEngine` and `VllmEngine`.

    Each adapter is a Scorer of its own, so prompts of several adapters can be in flight at once.
    The engine's own adapter does not change.
    """

    async def load_adapter(self, folder: str) -> Scorer:
        """An adapter folder, ready to score.

        Raises ModelUnusable or ArtifactMismatch if it cannot be served on this base,
        EngineUnavailable if the engine is down, AdapterRefused if this engine takes none at all.
        """
        ...

    async def unload_adapter(self, scorer: Scorer) -> None:
        """Free what `load_adapter` took. The scorer must not be used afterwards."""
        ...
