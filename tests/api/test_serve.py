import asyncio
import os
import signal
import socket

import httpx
import pytest
from fastapi import FastAPI

from services.api.main import Background, serve
from services.core.errors import InputError
from services.state.user_store import Store
from tests.api.builders import ScriptedEngine, an_app


class Running:
    """A server on a free port, as a task of the test's event loop."""

    def __init__(self, app: FastAPI, background: Background | None = None) -> None:
        self.stop = asyncio.Event()
        self._url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(
            serve(
                app,
                host="127.0.0.1",
                port=0,
                background=background,
                on_listening=self._url.set_result,
                stop=self.stop,
            )
        )

    async def url(self) -> str:
        return await asyncio.wait_for(self._url, timeout=30)

    async def ended(self) -> None:
        await asyncio.wait_for(self.task, timeout=30)


async def test_a_server_on_port_0_says_where_it_listens_and_answers_there(store: Store) -> None:
    running = Running(an_app(store))
    async with httpx.AsyncClient(base_url=await running.url()) as client:
        answer = await client.post("/recommend", json={"user_id": "u1", "k": 2})
    running.stop.set()
    await running.ended()
    assert [item["item_id"] for item in answer.json()["items"]] == ["i1", "i2"]


async def test_no_answer_names_the_program_that_serves(store: Store) -> None:
    running = Running(an_app(store))
    async with httpx.AsyncClient(base_url=await running.url()) as client:
        answer = await client.get("/version")
    running.stop.set()
    await running.ended()
    assert "server" not in answer.headers


async def test_a_request_in_hand_is_answered_before_the_server_ends(store: Store) -> None:
    engine = ScriptedEngine(stalled=["i1"])
    running = Running(an_app(store, engine))
    body = {"user_id": "u1", "candidates": ["i1"], "timeout_seconds": 0.5}
    async with httpx.AsyncClient(base_url=await running.url()) as client:
        request = asyncio.create_task(client.post("/recommend", json=body))
        await asyncio.wait_for(engine.first_asked.wait(), timeout=30)
        running.stop.set()
        assert (await request).json()["reason"] == "deadline"
    await running.ended()


async def test_background_work_runs_beside_the_server_and_is_stopped_with_it(store: Store) -> None:
    called = asyncio.Event()

    async def work(stop: asyncio.Event) -> None:
        await stop.wait()
        called.set()

    running = Running(an_app(store), work)
    await running.url()
    running.stop.set()
    await running.ended()
    assert called.is_set()


async def test_background_work_that_fails_ends_the_server_with_its_error(store: Store) -> None:
    async def work(stop: asyncio.Event) -> None:
        raise RuntimeError("the worker broke")

    with pytest.raises(RuntimeError, match="the worker broke"):
        await Running(an_app(store), work).ended()


async def test_a_terminate_signal_ends_the_server_in_order(store: Store) -> None:
    running = Running(an_app(store))
    await running.url()
    os.kill(os.getpid(), signal.SIGTERM)
    await running.ended()
    assert running.stop.is_set()


async def test_a_port_that_is_taken_is_named(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port}.*--port"):
            await serve(an_app(store), host="127.0.0.1", port=port)
