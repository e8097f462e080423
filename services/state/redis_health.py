"""Whether Redis serves; while it is known not to, calls fail at once instead of waiting.

The first slow call starts a health check: PING on its own connection, repeated until it succeeds,
so that a Redis that starts again is used again without a restart of this process. While the PING
gets no answer (a frozen or vanished machine), every call is refused. Where it fails at once (no
server listens), calls fail at once as well and are still sent.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from services.core.errors import StateError, StateUnavailable

log = structlog.get_logger(__name__)

# A call that takes longer starts a check; so does a call that is cancelled after CANCELLED_SECONDS.
SLOW_SECONDS = 1.0
CANCELLED_SECONDS = 0.1
# A PING that takes longer has failed, even if Redis is only busy with another client.
PING_SECONDS = 1.0
PAUSE_SECONDS = 0.2
# A timeout that fires this late shows that this process lacked CPU time; it says nothing of Redis.
STARVED_SECONDS = 0.25


class RedisHealth:
    """The health of the Redis that `ping` reaches; `ping` raises StateUnavailable if it is down."""

    def __init__(self, ping: Callable[[], Awaitable[None]]) -> None:
        """Redis is presumed to serve."""
        self._ping = ping
        self._problem: StateUnavailable | None = None
        self._hangs = False
        self._checking: asyncio.Task[None] | None = None

    @property
    def is_unavailable(self) -> bool:
        """Whether the last check found that Redis does not serve."""
        return self._problem is not None

    @asynccontextmanager
    async def observed_call(self) -> AsyncIterator[None]:
        """Around one call to Redis; raises StateUnavailable instead if Redis is known to hang."""
        if self._problem is not None and self._hangs:
            raise StateUnavailable(str(self._problem))
        loop = asyncio.get_running_loop()
        started = loop.time()
        slow = loop.call_later(SLOW_SECONDS, self.check)
        try:
            yield
        except asyncio.CancelledError:  # the caller has no time left
            if loop.time() - started > CANCELLED_SECONDS:
                self.check()
            raise
        finally:
            slow.cancel()

    def check(self) -> None:
        """Start a health check, unless one runs; it ends once Redis serves."""
        if self._checking is None:
            self._checking = asyncio.create_task(self._check_until_healthy())

    async def close(self) -> None:
        """End a running check."""
        if (checking := self._checking) is not None:
            checking.cancel()
            await asyncio.wait([checking])

    async def _check_until_healthy(self) -> None:
        try:
            while (problem := await self._find_problem()) is not None:
                if self._problem is None:
                    log.warning("redis_unavailable", reason=str(problem))
                self._problem = problem
                await asyncio.sleep(PAUSE_SECONDS)
            if self._problem is not None:
                log.info("redis_available_again")
        finally:
            self._problem = self._checking = None

    async def _find_problem(self) -> StateUnavailable | None:
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self._ping()
        except TimeoutError:
            if clock() - started > PING_SECONDS + STARVED_SECONDS:  # the reply may have come
                return None
            return StateUnavailable("Redis accepts connections and does not answer; is it frozen?")
        except StateUnavailable as problem:
            return problem
        except StateError:  # Redis answers; each call reports its own error
            return None
        finally:
            self._hangs = clock() - started > CANCELLED_SECONDS
        return None
