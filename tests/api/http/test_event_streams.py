import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI

from services.core.records import Interaction, ItemId, UserId
from services.state.user_store import Store
from tests.api.builders import an_app, put_user
from tests.api.test_serve import Running

PATH = "/users/u1/preference/events"


class Reader:
    """The events of one stream, as they come."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> tuple[str, str, Any]:
        """Event, id and data; a comment is an event without a name."""
        fields = {"event": "", "id": "", "data": "null"}
        async with asyncio.timeout(30):
            async for line in self._lines:
                if not line:
                    break
                name, _, value = line.partition(": ")
                fields[name] = value
        return fields["event"], fields["id"], json.loads(fields["data"])

    async def rest(self) -> list[str]:
        async with asyncio.timeout(30):
            return [line async for line in self._lines]


@asynccontextmanager
async def a_server(app: FastAPI) -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
    running = Running(app)
    async with httpx.AsyncClient(base_url=await running.url(), timeout=30) as client:
        yield running, client
        running.stop.set()
        await running.ended()


@asynccontextmanager
async def reading(client: httpx.AsyncClient, **headers: str) -> AsyncIterator[Reader]:
    async with client.stream("GET", PATH, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Reader(response)


async def test_the_preference_comes_at_once_and_again_when_it_or_the_history_changes(
    store: Store,
) -> None:
    await put_user(store, "u1", ["i1", "i2", "i3"], preference="foxes")
    async with a_server(an_app(store)) as (_, client), reading(client) as reader:
        event, event_id, data = await reader.next()
        assert (event, event_id, data["preference"]) == ("preference", "3", "foxes")
        assert data == (await client.get("/users/u1/preference")).json()
        await store.ingest([Interaction(UserId("u1"), ItemId("i4"), 9000, "later")])
        _, event_id, data = await reader.next()
        assert (event_id, data["history_version"]) == ("3", 4)


async def test_who_has_seen_the_preference_does_not_get_it_again(store: Store) -> None:
    await put_user(store, "u1", ["i1", "i2", "i3"], preference="foxes")
    async with a_server(an_app(store)) as (_, client):
        async with reading(client, **{"Last-Event-ID": "3"}) as reader:
            assert (await reader.next())[0] == ""
        async with reading(client, **{"Last-Event-ID": "2"}) as reader:
            assert (await reader.next())[0] == "preference"


async def test_a_user_who_is_forgotten_ends_the_stream(store: Store) -> None:
    await put_user(store, "u1", ["i1"])
    async with a_server(an_app(store)) as (_, client), reading(client) as reader:
        await reader.next()
        await store.forget_user(UserId("u1"))
        assert await reader.next() == ("forgotten", "", {})
        assert await reader.rest() == []


async def test_an_unknown_user_is_a_problem_document(store: Store) -> None:
    async with a_server(an_app(store)) as (_, client):
        response = await client.get(PATH)
    assert (response.status_code, response.json()["type"]) == (404, "/problems/unknown-user")


async def test_a_silent_stream_shows_that_it_lives(store: Store) -> None:
    await put_user(store, "u1", ["i1"])
    app = an_app(store, stream_silence_seconds=0.0)
    async with a_server(app) as (_, client), reading(client) as reader:
        await reader.next()
        assert await reader.next() == ("", "", None)


async def test_no_more_streams_are_open_than_may_be_and_one_that_is_left_makes_room(
    store: Store,
) -> None:
    await put_user(store, "u1", ["i1"])
    app = an_app(store, max_streams=1)
    async with a_server(app) as (_, client):
        async with reading(client) as reader:
            await reader.next()
            refused = await client.get(PATH)
            assert "msr_streams_open 1.0" in (await client.get("/metrics")).text
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
        assert refused.json()["type"] == "/problems/too-many-streams"
        async with asyncio.timeout(30):
            while "msr_streams_open 0.0" not in (await client.get("/metrics")).text:
                pass
        async with reading(client) as reader:
            assert (await reader.next())[0] == "preference"


async def test_open_streams_do_not_keep_a_server_from_ending(store: Store) -> None:
    await put_user(store, "u1", ["i1"])
    async with a_server(an_app(store)) as (running, client), reading(client) as reader:
        await reader.next()
        running.stop.set()
        assert await reader.rest() == []
        await running.ended()


async def test_a_stream_ends_after_its_time_and_its_length_counts_as_no_delay(store: Store) -> None:
    await put_user(store, "u1", ["i1"])
    async with a_server(an_app(store, stream_seconds=0.3)) as (_, client):
        async with reading(client) as reader:
            await reader.next()
            assert await reader.rest() == []
        route = 'route="/users/{user_id}/preference/events"'
        metrics = (await client.get("/metrics")).text
    [line] = [each for each in metrics.splitlines() if f"request_seconds_sum{{{route}}}" in each]
    assert float(line.split()[-1]) < 0.3
