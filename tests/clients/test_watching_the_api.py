"""Watching a preference at the real API: `test_watching.py` has what else may happen."""

import asyncio
from contextlib import aclosing, closing

from clients.python import AsyncMsrClient, MsrClient
from services.core import wire


def took(user_id: str, item_id: str) -> wire.InteractionIn:
    return wire.InteractionIn(user_id=user_id, item_id=item_id)


def test_the_history_is_sent_as_it_grows_and_the_end_when_the_user_is_forgotten(
    base_url: str,
) -> None:
    with MsrClient(base_url) as client:
        client.interact(took("a/b", "i1"))
        with closing(client.watch_preference("a/b")) as updates:
            assert next(updates).history_version == 1
            client.interact(took("a/b", "i2"))
            assert next(updates).history_version == 2
            client.forget("a/b")
            assert next(updates, None) is None


async def test_a_version_that_is_known_is_not_reported_again(base_url: str) -> None:
    async with AsyncMsrClient(base_url) as client:
        known = await client.preference("u1")
        watch = client.watch_preference("u1", after_version=known.preference_version)
        async with aclosing(watch) as updates:
            told = asyncio.ensure_future(anext(updates))
            while not told.done():  # nobody says when the stream is open
                await client.interact(took("u1", "i2"))
                await asyncio.sleep(0.05)
            assert told.result().history_version > known.history_version
