"""Whether the engine answers: known from its last requests, probed if they were long ago."""

import asyncio
from collections.abc import Callable

from services.core.errors import EngineError, EngineTimeout
from services.core.prompts import scoring_messages
from services.core.records import Item, ItemId
from services.engines.contract import Scorer

_PROBE = scoring_messages("", Item(ItemId("probe"), "Is anybody there?"))


class EngineWatch:
    """The engine's last answer or failure, and its time."""

    def __init__(
        self,
        scorer: Callable[[], Scorer],
        *,
        silence_seconds: float,
        failure_seconds: float,
        wait_seconds: float,
    ) -> None:
        """An answer counts for `silence_seconds`, a failure for `failure_seconds`. After that the
        current `scorer` is probed, and has `wait_seconds` to answer.
        """
        self._scorer = scorer
        self._silence_seconds = silence_seconds
        self._failure_seconds = failure_seconds
        self._wait_seconds = wait_seconds
        self._heard_at: float | None = None
        self._error: EngineError | None = None
        self._probing = asyncio.Lock()

    def note(self, error: EngineError | None) -> None:
        """Record that the engine answered just now (None), or failed."""
        self._heard_at = asyncio.get_running_loop().time()
        self._error = error

    async def look(self) -> EngineError | None:
        """None if the engine answers, else its failure. Concurrent callers share one probe."""
        async with self._probing:
            if not self._is_recent():
                await self._probe()
        return self._error

    def _is_recent(self) -> bool:
        if self._heard_at is None:
            return False
        valid_seconds = self._silence_seconds if self._error is None else self._failure_seconds
        return asyncio.get_running_loop().time() - self._heard_at < valid_seconds

    async def _probe(self) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._scorer().score(_PROBE)
        except TimeoutError:
            self.note(EngineTimeout(f"no answer in {self._wait_seconds} s"))
        except EngineError as error:
            self.note(error)
        else:
            self.note(None)
