"""Connections that are kept, shared and given up, against a server on a real socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from services.engines.vllm_client.http_transport import FreeConnections

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Listener:
    """Answers each request once `gate` is open, and sees who comes and goes."""

    def __init__(self) -> None:
        self.url = ""
        self.gate = asyncio.Event()
        self.num_connections = 0
        self.asked = asyncio.Semaphore(0)
        self.left = asyncio.Event()
        self.num_left = 0

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
            writer.write(ANSWER)
        writer.close()
        self.num_left += 1
        self.left.set()

    async def _has_request(self, reader: asyncio.StreamReader) -> bool:
        try:
            await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        return True


@asynccontextmanager
async def a_listener(
    idle_seconds: float = 4.0,
) -> AsyncIterator[tuple[Listener, httpx.AsyncClient]]:
    listener = Listener()
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0)
    listener.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    transport = FreeConnections(idle_seconds)
    async with httpx.AsyncClient(base_url=listener.url, transport=transport) as http:
        yield listener, http
    server.close()


async def test_a_connection_is_used_again():
    async with a_listener() as (listener, http):
        listener.gate.set()
        for _ in range(3):
            assert (await http.get("/")).text == "ok"

        assert listener.num_connections == 1


async def test_requests_at_once_have_a_connection_each():
    async with a_listener() as (listener, http):
        asking = asyncio.gather(*(http.get("/") for _ in range(5)))
        for _ in range(5):
            await listener.asked.acquire()
        listener.gate.set()

        assert [answer.text for answer in await asking] == ["ok"] * 5
        assert listener.num_connections == 5


async def test_a_cancelled_request_closes_its_connection_and_the_next_opens_another():
    async with a_listener() as (listener, http):
        asking = asyncio.create_task(http.get("/"))
        await listener.asked.acquire()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await listener.left.wait()

        listener.gate.set()
        assert (await http.get("/")).text == "ok"
        assert listener.num_connections == 2


@pytest.mark.parametrize("is_kept", [False, True])
async def test_a_request_cancelled_at_any_step_leaves_nothing_behind_that_blocks_the_next(
    is_kept: bool,
):
    async with a_listener() as (listener, http):
        listener.gate.set()
        for num_steps in range(60):
            if is_kept:
                await http.get("/")
            asking = asyncio.create_task(http.get("/"))
            for _ in range(num_steps):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait({asking})

            async with asyncio.timeout(30):
                assert (await http.get("/")).text == "ok"


async def test_connections_of_a_busy_moment_are_closed_once_they_are_idle():
    async with a_listener(idle_seconds=0.1) as (listener, http):
        asking = asyncio.gather(*(http.get("/") for _ in range(5)))
        for _ in range(5):
            await listener.asked.acquire()
        listener.gate.set()
        await asking

        async with asyncio.timeout(30):
            while listener.num_left < 4:
                await http.get("/")
                await asyncio.sleep(0.02)
