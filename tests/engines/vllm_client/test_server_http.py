"""Connections that are kept, shared and given up, against a server on a real socket."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from services.core.errors import EngineRefused
from services.engines.vllm_client.server_http import (
    AttemptFailed,
    ConnectionLost,
    ServerHttp,
    open_session,
    sender,
)

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

Get = Callable[[], Awaitable[bytes]]


class Listener:
    """Answers each request once `gate` is open, and sees who comes and goes."""

    def __init__(self) -> None:
        self.url = ""
        self.gate = asyncio.Event()
        self.num_connections = 0
        self.asked = asyncio.Semaphore(0)
        self.left = asyncio.Event()
        self.num_left = 0
        self.answer = ANSWER
        self.closes = False
        self.request = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        while await self._has_request(reader):
            self.asked.release()
            gone = asyncio.create_task(reader.read(1)) if not self.gate.is_set() else None
            if gone is not None:
                opened = asyncio.create_task(self.gate.wait())
                await asyncio.wait({gone, opened}, return_when=asyncio.FIRST_COMPLETED)
                opened.cancel()
                if gone.done():
                    break
                gone.cancel()
                await asyncio.wait({gone})
            writer.write(self.answer)
            if self.closes:
                break
        writer.close()
        self.num_left += 1
        self.left.set()

    async def _has_request(self, reader: asyncio.StreamReader) -> bool:
        try:
            self.request = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        return True


@asynccontextmanager
async def a_listener(idle_seconds: float = 4.0) -> AsyncIterator[tuple[Listener, Get]]:
    listener = Listener()
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0)
    listener.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with open_session(keepalive_seconds=idle_seconds) as session:
        send = sender(session)

        async def get() -> bytes:
            return (await send("GET", URL(listener.url), None, {})).body

        yield listener, get
    server.close()


@asynccontextmanager
async def a_server(answer: bytes, *, login: str = "") -> AsyncIterator[tuple[Listener, ServerHttp]]:
    async with a_listener() as (listener, _), open_session() as session:
        listener.answer = answer
        listener.gate.set()
        url = listener.url.replace("http://", f"http://{login}")
        yield listener, ServerHttp(url, sender(session))


async def test_a_connection_is_used_again():
    async with a_listener() as (listener, get):
        listener.gate.set()
        for _ in range(3):
            assert await get() == b"ok"

        assert listener.num_connections == 1


async def test_requests_at_once_have_a_connection_each():
    async with a_listener() as (listener, get):
        asking = asyncio.gather(*(get() for _ in range(5)))
        for _ in range(5):
            await listener.asked.acquire()
        listener.gate.set()

        assert await asking == [b"ok"] * 5
        assert listener.num_connections == 5


async def test_a_cancelled_request_closes_its_connection_and_the_next_opens_another():
    async with a_listener() as (listener, get):
        asking = asyncio.create_task(get())
        await listener.asked.acquire()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await listener.left.wait()

        listener.gate.set()
        assert await get() == b"ok"
        assert listener.num_connections == 2


@pytest.mark.parametrize("is_kept", [False, True])
async def test_a_request_cancelled_at_any_step_leaves_nothing_behind_that_blocks_the_next(
    is_kept: bool,
):
    async with a_listener() as (listener, get):
        listener.gate.set()
        for num_steps in range(60):
            if is_kept:
                await get()
            asking = asyncio.create_task(get())
            for _ in range(num_steps):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait({asking})

            async with asyncio.timeout(30):
                assert await get() == b"ok"


async def test_connections_of_a_busy_moment_are_closed_once_they_are_idle():
    async with a_listener(idle_seconds=0.1) as (listener, get):
        asking = asyncio.gather(*(get() for _ in range(5)))
        for _ in range(5):
            await listener.asked.acquire()
        listener.gate.set()
        await asking

        async with asyncio.timeout(30):
            while listener.num_left < 4:
                await get()
                # Connections are used in turn: two in turn are idle for 0.12 s, one for 0.06 s.
                await asyncio.sleep(0.06)


# --- what a server's failures become -------------------------------------------------------------


async def test_an_address_where_nothing_listens_is_a_server_that_is_down():
    async with open_session() as session:
        http = ServerHttp("http://127.0.0.1:9", sender(session))

        with pytest.raises(AttemptFailed, match=r"http://127.0.0.1:9 cannot be reached .*failed"):
            await http.request_json("GET", "/v1/models")


@pytest.mark.parametrize("answer", [b"", b"220 mail\r\n", ANSWER[:-1]])
async def test_a_connection_that_ends_before_the_answer_does_is_lost(answer: bytes):
    async with a_server(answer) as (listener, http):
        listener.closes = True

        with pytest.raises(ConnectionLost):
            await http.request_json("GET", "/v1/models")


async def test_a_redirect_is_not_followed():
    moved = b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n"
    async with a_server(moved) as (listener, http):
        with pytest.raises(AttemptFailed, match="/v1/models answered 302"):
            await http.request_json("POST", "/v1/models", b"{}")
        assert listener.request.startswith(b"POST /v1/models")


async def test_credentials_of_the_address_are_sent_and_appear_in_no_error():
    refused = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno"
    async with a_server(refused, login="me:secret@") as (listener, http):
        with pytest.raises(EngineRefused) as failed:
            await http.request_json("GET", "/v1/models")

    assert b64encode(b"me:secret") in listener.request
    assert "secret" not in str(failed.value)
