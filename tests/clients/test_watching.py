"""Updates of a preference, over real connections that are cut, refused and ended."""

import json
import time
from collections.abc import Iterator
from contextlib import aclosing, closing

import httpx
import pytest

from clients.python import (
    AsyncMsrClient,
    MsrClient,
    ProblemError,
    Retries,
    ServerUnreachable,
    UnknownUser,
)
from services.core import wire
from tests.clients.serving import Reply, ScriptedServer

AT_ONCE = Retries(first_pause_seconds=0.0)
ALIVE = b": keep-alive\n\n"
FORGOTTEN = b"event: forgotten\ndata: {}\n\n"


def told(version: int) -> bytes:
    example = wire.PreferenceResponse.model_config["json_schema_extra"]["examples"][0]
    body = json.dumps({**example, "preference_version": version})
    return f"event: preference\nid: {version}\ndata: {body}\n\n".encode()


def refused(slug: str, status: int) -> Reply:
    example = wire.Problem.model_config["json_schema_extra"]["examples"][0]
    body = json.dumps({**example, "type": f"/problems/{slug}", "status": status}).encode()
    return Reply([body], "end", status, "application/problem+json")


def watched_by_blocking(url: str, after: int | None) -> list[int]:
    with MsrClient(url, retries=AT_ONCE) as client:
        updates = client.watch_preference("u/1", after_version=after)
        return [update.preference_version for update in updates]


async def watched_by_awaiting(url: str, after: int | None) -> list[int]:
    async with AsyncMsrClient(url, retries=AT_ONCE) as client:
        updates = client.watch_preference("u/1", after_version=after)
        return [update.preference_version async for update in updates]


async def watched(
    server: ScriptedServer, *replies: Reply, after: int | None = None
) -> tuple[list[int], list[str | None]]:
    """The versions that are told, and the ids that requests show; by both clients the same."""
    blocking = watched_by_blocking(server.play(*replies), after), server.ids_shown
    assert not server.replies
    awaiting = await watched_by_awaiting(server.play(*replies), after), server.ids_shown
    assert blocking == awaiting
    return blocking


async def test_each_update_is_sent_until_the_user_is_forgotten(server: ScriptedServer) -> None:
    reply = Reply([told(1), ALIVE, told(2)[:40], told(2)[40:] + told(3), FORGOTTEN], "hold")
    assert await watched(server, reply) == ([1, 2, 3], [None])


@pytest.mark.parametrize("end", ["cut", "end"])
async def test_a_stream_that_breaks_off_is_gone_on_with_from_its_last_id(
    server: ScriptedServer, end: str
) -> None:
    replies = (Reply([told(1), told(2) + told(3)[:20]], end), Reply([ALIVE, told(3)], end),
               Reply([FORGOTTEN]))  # fmt: skip
    assert await watched(server, *replies) == ([1, 2, 3], [None, "2", "3"])


async def test_a_version_that_is_known_is_not_asked_for(server: ScriptedServer) -> None:
    assert await watched(server, Reply([told(8), FORGOTTEN]), after=7) == ([8], ["7"])


async def test_a_server_that_puts_off_is_asked_again(server: ScriptedServer) -> None:
    replies = (refused("state-unavailable", 503), Reply([told(1)]), refused("rate-limited", 429),
               Reply([FORGOTTEN]))  # fmt: skip
    assert await watched(server, *replies) == ([1], [None, None, "1", "1"])


async def test_a_user_who_was_forgotten_between_two_connections_ends_the_stream(
    server: ScriptedServer,
) -> None:
    assert (await watched(server, Reply([told(1)]), refused("unknown-user", 404)))[0] == [1]


async def raised(server: ScriptedServer, expected: type[Exception], *replies: Reply) -> None:
    """Both clients raise this, after all of the replies."""
    with pytest.raises(expected):
        watched_by_blocking(server.play(*replies), None)
    assert not server.replies
    with pytest.raises(expected):
        await watched_by_awaiting(server.play(*replies), None)
    assert not server.replies


async def test_an_unknown_user_is_a_problem(server: ScriptedServer) -> None:
    await raised(server, UnknownUser, refused("unknown-user", 404))


async def test_what_is_no_stream_of_events_is_not_this_api(server: ScriptedServer) -> None:
    await raised(server, ServerUnreachable, Reply([b"<html>"], "end", media_type="text/html"))
    await raised(server, ServerUnreachable, Reply([b"event: preference\ndata: {\n\n"], "end"))


async def test_connections_that_say_nothing_are_made_again_only_so_often(
    server: ScriptedServer,
) -> None:
    await raised(server, ServerUnreachable, *[Reply()] * 4)


async def test_a_refusal_in_the_middle_is_raised(server: ScriptedServer) -> None:
    await raised(server, ProblemError, Reply([told(1)]), refused("forbidden", 403))


# --- how long until the next connection ----------------------------------------------------------


class Streams(httpx.MockTransport):
    """Gives streams in turn, each a piece and then its end or an error; keeps the requests."""

    def __init__(self, *streams: tuple[bytes, httpx.TransportError | None]) -> None:
        self.sent: list[httpx.Request] = []
        self._streams = list(streams)
        super().__init__(self._open)

    def _open(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        piece, error = self._streams.pop(0)

        def content() -> Iterator[bytes]:
            yield piece
            if error is not None:
                raise error

        headers = {"Content-Type": "text/event-stream"}
        return httpx.Response(200, headers=headers, content=content())


@pytest.mark.parametrize("then", [None, httpx.ReadError("cut"), httpx.ReadTimeout("silent")])
def test_a_stream_that_ends_breaks_or_falls_silent_is_asked_for_again(
    then: httpx.TransportError | None,
) -> None:
    streams = Streams((b"id: 3\n\n", then), (FORGOTTEN, None))
    with MsrClient("http://x", transport=streams, retries=AT_ONCE) as client:
        assert list(client.watch_preference("u1")) == []
    assert streams.sent[1].headers["Last-Event-ID"] == "3"


def test_a_stream_that_was_heard_begins_the_tries_again() -> None:
    streams = Streams(*[(ALIVE, httpx.ReadError("cut"))] * 9, (FORGOTTEN, None))
    with MsrClient("http://x", transport=streams, retries=AT_ONCE) as client:
        assert list(client.watch_preference("u1")) == []
    assert len(streams.sent) == 10


def test_the_server_says_how_long_to_wait_before_that() -> None:
    streams = Streams((b"retry: 200\n\n", None), (FORGOTTEN, None))
    began = time.monotonic()
    with MsrClient("http://x", transport=streams, retries=AT_ONCE) as client:
        assert list(client.watch_preference("u1")) == []
    assert time.monotonic() - began >= 0.2


# --- leaving -------------------------------------------------------------------------------------


def test_who_leaves_a_blocking_watch_hangs_up(server: ScriptedServer) -> None:
    with MsrClient(server.play(Reply([told(1)], "hold"), Reply([told(2)], "hold"))) as client:
        for version in (1, 2):
            with closing(client.watch_preference("u1")) as updates:
                assert next(updates).preference_version == version


async def test_who_leaves_an_awaited_watch_hangs_up(server: ScriptedServer) -> None:
    url = server.play(Reply([told(1)], "hold"), Reply([told(2)], "hold"))
    async with AsyncMsrClient(url) as client:
        for version in (1, 2):
            async with aclosing(client.watch_preference("u1")) as updates:
                assert (await anext(updates)).preference_version == version
