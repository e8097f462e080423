"""Whether the engine answers: learned from the requests it gets, and asked only after a silence."""

import asyncio
from collections.abc import Callable

from services.core.errors import EngineError, EngineTimeout
from services.core.prompts import scoring_messages
from services.core.records import Item, ItemId
from services.engines.contract import Scorer

_PROBE = scoring_messages("", Item(ItemId("probe"), "Is anybody there?"))


class EngineWatch:
    """What was last heard of the engine, and when."""

    def __init__(
        self,
        scorer: Callable[[], Scorer],
        *,
        silence_seconds: float,
        failure_seconds: float,
        wait_seconds: float,
    ) -> None:
        """An answer is believed for `silence_seconds`, a failure for `failure_seconds`; then the
        engine, whoever is its `scorer` then, is asked and given `wait_seconds`.
        """
        self._scorer = scorer
        self._silence_seconds = silence_seconds
        self._failure_seconds = failure_seconds
        self._wait_seconds = wait_seconds
        self._heard_at: float | None = None
        self._error: EngineError | None = None
        self._asking = asyncio.Lock()

    def note(self, error: EngineError | None) -> None:
        """The engine just answered (None) or failed."""
        self._heard_at = asyncio.get_running_loop().time()
        self._error = error

    async def look(self) -> EngineError | None:
        """None if the engine answers, else how it failed. Callers share one question to it."""
        async with self._asking:
            if not self._heard_lately():
                await self._ask()
        return self._error

    def _heard_lately(self) -> bool:
        if self._heard_at is None:
            return False
        believed = self._silence_seconds if self._error is None else self._failure_seconds
        return asyncio.get_running_loop().time() - self._heard_at < believed

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._scorer().score(_PROBE)
        except TimeoutError:
            self.note(EngineTimeout(f"no answer in {self._wait_seconds} s"))
        except EngineError as error:
            self.note(error)
        else:
            self.note(None)
