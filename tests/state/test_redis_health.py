"""When Redis is taken to be away, by a PING that the tests answer."""

import asyncio
import time

import pytest

from services.core.errors import StateUnavailable
from services.state.redis_health import PING_SECONDS, STARVED_SECONDS, Presence


async def never() -> None:
    await asyncio.Event().wait()


async def use(presence: Presence) -> None:
    async with presence.asking():
        pass


async def test_a_ping_without_an_answer_refuses_all_calls_until_one_is_answered():
    answered = asyncio.Event()

    async def ping() -> None:
        await answered.wait()

    presence = Presence(ping)
    presence.suspect()
    await until(presence, away=True)
    with pytest.raises(StateUnavailable, match="frozen"):
        await use(presence)

    answered.set()
    await until(presence, away=False)
    await use(presence)


async def test_a_process_that_had_no_time_itself_blames_nobody():
    presence = Presence(never)
    presence.suspect()
    await asyncio.sleep(0)
    time.sleep(PING_SECONDS + 2 * STARVED_SECONDS)  # noqa: ASYNC251 (nothing else runs meanwhile)
    await asyncio.sleep(0.05)

    assert not presence.is_known_to_be_away
    await use(presence)
    await presence.close()


async def until(presence: Presence, *, away: bool) -> None:
    async with asyncio.timeout(30):
        while presence.is_known_to_be_away != away:  # noqa: ASYNC110 (it sets no event)
            await asyncio.sleep(0.01)
