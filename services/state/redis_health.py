"""Whether Redis serves: while it is known not to, nobody waits for it to find out again.

The first that waits in vain raises the suspicion; a PING on a connection of its own decides, and is
repeated until it succeeds: a Redis that is started, or thaws, serves again without a restart of
ours. While it keeps one waiting (frozen, or a machine that vanished), every call is refused at
once. Where it fails at once (nobody listens), so do calls, and they go on trying.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from services.core.errors import StateError, StateUnavailable

log = structlog.get_logger(__name__)

# An answer that takes longer raises the suspicion; so does a call given up after a moment.
SUSPICIOUS_SECONDS = 1.0
MOMENT_SECONDS = 0.1
# A PING that takes longer failed: also a Redis that serves, but somebody else for that long.
PING_SECONDS = 1.0
PAUSE_SECONDS = 0.2
# A timeout that comes so late says that this process had no time, and nothing of Redis.
STARVED_SECONDS = 0.25


class Presence:
    """Of the Redis that `ping` reaches; it raises StateUnavailable if that does not serve."""

    def __init__(self, ping: Callable[[], Awaitable[None]]) -> None:
        """It is presumed to serve."""
        self._ping = ping
        self._problem: StateUnavailable | None = None
        self._keeps_waiting = False
        self._looking: asyncio.Task[None] | None = None

    @property
    def is_known_to_be_away(self) -> bool:
        """Whether it did not serve when it was last looked for."""
        return self._problem is not None

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """One call to Redis; raises StateUnavailable before it if that is known to be in vain."""
        if self._problem is not None and self._keeps_waiting:
            raise StateUnavailable(str(self._problem))
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        suspicion = loop.call_later(SUSPICIOUS_SECONDS, self.suspect)
        try:
            yield
        except asyncio.CancelledError:  # whoever asked has no more time
            if loop.time() - asked_at > MOMENT_SECONDS:
                self.suspect()
            raise
        finally:
            suspicion.cancel()

    def suspect(self) -> None:
        """Look whether it serves, and if not, until it does."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Look no more."""
        if (looking := self._looking) is not None:
            looking.cancel()
            await asyncio.wait([looking])

    async def _look(self) -> None:
        try:
            while (problem := await self._find_problem()) is not None:
                if self._problem is None:
                    log.warning("state_away", reason=str(problem))
                self._problem = problem
                await asyncio.sleep(PAUSE_SECONDS)
            if self._problem is not None:
                log.info("state_back")
        finally:
            self._problem = self._looking = None

    async def _find_problem(self) -> StateUnavailable | None:
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._ping()
        except TimeoutError:
            if clock() - asked_at > PING_SECONDS + STARVED_SECONDS:  # the answer may be there
                return None
            return StateUnavailable("Redis accepts connections and does not answer; is it frozen?")
        except StateUnavailable as problem:
            return problem
        except StateError:  # it answers; what is wrong, each call is told itself
            return None
        finally:
            self._keeps_waiting = clock() - asked_at > MOMENT_SECONDS
        return None
