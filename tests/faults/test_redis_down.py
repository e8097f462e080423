"""The API while Redis is stopped, frozen or restarted: 503 at once, and no restart of ours."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from benchmarks.faults.supervised_process import (
    SupervisedProcess,
    ended_after,
    free_port,
    redis_server,
)
from services.state.user_store import Store
from tests.api.builders import a_client, an_app, put_catalogue

# Of a request; a refusal must come much sooner.
TIMEOUT_SECONDS = 5.0
PATIENCE_SECONDS = 60.0


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
async def redis(tmp_path: Path, port: int) -> AsyncIterator[SupervisedProcess]:
    redis = redis_server(tmp_path, port)
    with ended_after([redis]):
        await redis.start()
        yield redis


@pytest.fixture
async def app(redis: SupervisedProcess, port: int) -> AsyncIterator[FastAPI]:
    store = await Store.open(f"redis://127.0.0.1:{port}/0", timeout_seconds=2.0)
    await put_catalogue(store)
    yield an_app(store)
    await store.close()


async def ask(app: FastAPI, *, timeout_seconds: float = TIMEOUT_SECONDS) -> httpx.Response:
    body = {"user_id": "u1", "timeout_seconds": timeout_seconds}
    async with a_client(app) as client:
        return await client.post("/recommend", json=body)


async def is_refused(app: FastAPI, *, timeout_seconds: float = TIMEOUT_SECONDS) -> bool:
    return (await ask(app, timeout_seconds=timeout_seconds)).status_code == 503


async def wait_for_status(app: FastAPI, status: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await ask(app)).status_code != status:  # noqa: ASYNC110 (another process)
            await asyncio.sleep(0.05)


async def refusals(app: FastAPI, number: int = 20) -> float:
    """Ask so often, be refused each time with when to come again; the seconds all that took."""
    started = time.monotonic()
    for _ in range(number):
        refusal = await ask(app)
        assert (refusal.status_code, refusal.headers["retry-after"]) == (503, "2")
        assert refusal.json()["type"] == "/problems/state-unavailable"
    return time.monotonic() - started


async def test_while_redis_is_stopped_requests_are_refused_at_once(
    app: FastAPI, redis: SupervisedProcess
):
    await redis.kill()

    assert await refusals(app) < TIMEOUT_SECONDS
    await redis.start()
    await wait_for_status(app, 200)


async def test_a_frozen_redis_is_waited_for_once_and_then_no_more(
    app: FastAPI, redis: SupervisedProcess
):
    redis.freeze()
    assert await is_refused(app, timeout_seconds=0.3)
    assert await is_refused(app)

    # One by one, each of them after its timeout, they would take 100 s.
    assert await refusals(app) < TIMEOUT_SECONDS
    redis.thaw()
    await wait_for_status(app, 200)


async def test_a_restart_of_redis_between_requests_goes_unnoticed(
    app: FastAPI, redis: SupervisedProcess
):
    assert not await is_refused(app)
    await redis.restart()

    assert not await is_refused(app)


async def test_health_and_metrics_tell_that_redis_is_away(app: FastAPI, redis: SupervisedProcess):
    await redis.kill()
    assert await is_refused(app)

    async with a_client(app) as client:
        assert (await client.get("/health/ready")).json()["components"]["redis"]["state"] == "down"
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "msr_redis_unavailable 1.0" not in (await client.get("/metrics")).text:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
