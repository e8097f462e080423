"""When Redis counts as unavailable, with a PING that the tests answer."""

import asyncio
import time

import pytest

from services.core.errors import StateUnavailable
from services.state.redis_health import PING_SECONDS, STARVED_SECONDS, RedisHealth


async def never() -> None:
    await asyncio.Event().wait()


async def use(health: RedisHealth) -> None:
    async with health.observed_call():
        pass


async def test_while_a_ping_gets_no_answer_every_call_is_refused():
    answered = asyncio.Event()

    async def ping() -> None:
        await answered.wait()

    health = RedisHealth(ping)
    health.check()
    await until(health, away=True)
    with pytest.raises(StateUnavailable, match="frozen"):
        await use(health)

    answered.set()
    await until(health, away=False)
    await use(health)


async def test_a_timeout_in_a_starved_process_says_nothing_of_redis():
    health = RedisHealth(never)
    health.check()
    await asyncio.sleep(0)
    time.sleep(PING_SECONDS + 2 * STARVED_SECONDS)  # noqa: ASYNC251 (nothing else runs meanwhile)
    await asyncio.sleep(0.05)

    assert not health.is_unavailable
    await use(health)
    await health.close()


async def until(health: RedisHealth, *, away: bool) -> None:
    async with asyncio.timeout(30):
        while health.is_unavailable != away:  # noqa: ASYNC110 (it sets no event)
            await asyncio.sleep(0.01)
