"""Whether the engine answers: known from its last requests, probed if they were long ago."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from services.api.limits import Limits
from services.core.errors import EngineError, EngineTimeout
from services.core.prompts import scoring_messages
from services.core.records import Item, ItemId
from services.engines.contract import Scorer

_PROBE = scoring_messages("", Item(ItemId("probe"), "Is anybody there?"))


@dataclass(eq=False, slots=True)
class EngineWatch:
    """The engine's last answer or failure, and its time.

    An answer counts for `engine_silence_seconds`, a failure for `engine_failure_seconds`. After
    that the current `scorer` is probed, and has `engine_wait_seconds` to answer.
    """

    scorer: Callable[[], Scorer]
    limits: Limits
    heard_at: float | None = None
    error: EngineError | None = None
    probing: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    def note(self, error: EngineError | None) -> None:
        """Record that the engine answered just now (None), or failed."""
        self.heard_at = asyncio.get_running_loop().time()
        self.error = error

    async def look(self) -> EngineError | None:
        """None if the engine answers, else its failure. Concurrent callers share one probe."""
        async with self.probing:
            if not self._is_recent():
                await self._probe()
        return self.error

    def _is_recent(self) -> bool:
        if self.heard_at is None:
            return False
        limits = self.limits
        is_well = self.error is None
        valid_seconds = limits.engine_silence_seconds if is_well else limits.engine_failure_seconds
        return asyncio.get_running_loop().time() - self.heard_at < valid_seconds

    async def _probe(self) -> None:
        wait_seconds = self.limits.engine_wait_seconds
        try:
            async with asyncio.timeout(wait_seconds):
                await self.scorer().score(_PROBE)
        except TimeoutError:
            self.note(EngineTimeout(f"no answer in {wait_seconds} s"))
        except EngineError as error:
            self.note(error)
        else:
            self.note(None)
