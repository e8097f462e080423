"""Stops a batch whose model refuses everything, before it has cost hours."""

from services.core.errors import EngineRefused, ModelUnusable
from services.core.prompts import GenerationLimits, Messages
from services.core.scoring import AnswerLogprobs
from services.engines.contract import Engine, EngineIdentity

NUM_FIRST = 20


class StopsIfAllRefused:
    """Implements `contract.Engine` by another one.

    When the first NUM_FIRST prompts were all refused, ModelUnusable ends the batch.
    """

    def __init__(self, engine: Engine) -> None:
        """Counts anew from here."""
        self._engine = engine
        self._num_refused = 0
        self._any_answered = False

    @property
    def identity(self) -> EngineIdentity:
        """See `contract.Engine`."""
        return self._engine.identity

    @property
    def num_shortened(self) -> int:
        """See `contract.Engine`."""
        return self._engine.num_shortened

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        """See `contract.Engine.generate`."""
        try:
            text = await self._engine.generate(messages, limits)
        except EngineRefused as error:
            self._count(error)
            raise
        self._any_answered = True
        return text

    async def score(self, messages: Messages) -> AnswerLogprobs:
        """See `contract.Engine.score`."""
        try:
            answer = await self._engine.score(messages)
        except EngineRefused as error:
            self._count(error)
            raise
        self._any_answered = True
        return answer

    async def close(self) -> None:
        """See `contract.Engine.close`."""
        await self._engine.close()

    def _count(self, error: EngineRefused) -> None:
        self._num_refused += 1
        if not self._any_answered and self._num_refused >= NUM_FIRST:
            raise ModelUnusable(
                f"the model {self.identity.model} refused the first {NUM_FIRST} prompts, the last "
                f"one because: {error}; use a model that takes them (`msr doctor` checks it)"
            ) from error
