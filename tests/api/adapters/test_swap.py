"""Adapters are swapped under load on the real engine: no request fails, and none is mixed."""

import asyncio
from collections.abc import AsyncIterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from services.core.records import UserId
from services.engines.local.engine import LocalEngine
from services.state import keys
from services.state.user_store import Store
from tests.api.adapter_builders import SERVED, SFT, put_adapter
from tests.api.builders import ITEM_IDS, an_app, live_adapters, put_user, recommend, send

BASE = str(SERVED.parent / "base")
NUM_CALLERS = 4
NUM_SWAPS = 8


@pytest.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine.load(BASE, str(SERVED), device="cpu")
    yield engine
    await engine.close()


@pytest.fixture
async def app(store: Store, engine: LocalEngine, tmp_path: Path) -> FastAPI:
    for number in range(1, 4):
        await put_user(store, f"u{number}", ["i1"], preference=f"Likes red things {number}")
    put_adapter(tmp_path, "sft")
    return an_app(store, engine, adapters=live_adapters(store, engine, tmp_path))


def margins(answer: dict[str, Any]) -> dict[str, float]:
    return {item["item_id"]: item["parts"]["margin"]["value"] for item in answer["items"]}


async def scores_alone(store: Store, adapter: Path) -> dict[tuple[str, str], float]:
    """(user, item) -> margin, from an engine that has this adapter only."""
    engine = LocalEngine.load(BASE, str(adapter), device="cpu")
    app = an_app(store, engine)
    found: dict[tuple[str, str], float] = {}
    for user in ("u1", "u2", "u3"):
        answer = await recommend(app, user, k=6, exclude_seen=False, timeout_seconds=60)
        found |= {(user, item): margin for item, margin in margins(answer).items()}
    await engine.close()
    return found


async def test_swapping_under_load_fails_no_request_and_mixes_none(
    app: FastAPI, store: Store, engine: LocalEngine
) -> None:
    stop = asyncio.Event()
    answers: list[dict[str, Any]] = []

    async def call(first: int) -> None:
        users = cycle(["u1", "u2", "u3"])
        for _ in range(first):
            next(users)
        while not stop.is_set():
            user = next(users)
            # What was scored is forgotten, so that the model has to score it again.
            await store.connection.call("DEL", keys.scores(UserId(user)))
            answer = await recommend(app, user, k=6, exclude_seen=False, timeout_seconds=60)
            answers.append(answer)

    async def swap() -> None:
        for name, _ in zip(cycle(["sft", "own"]), range(NUM_SWAPS), strict=False):
            since = len(answers)
            assert (await send(app, "POST", f"/adapters/{name}/activate")).status_code == 200
            while not any(answer["adapter"] == name for answer in answers[since:]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        stop.set()

    await asyncio.gather(swap(), *(call(number) for number in range(NUM_CALLERS)))

    alone = {"own": await scores_alone(store, SERVED), "sft": await scores_alone(store, SFT)}
    assert {answer["adapter"] for answer in answers} == {"own", "sft"}
    for answer in answers:
        assert not answer["degraded"]
        expected = alone[answer["adapter"]]
        for item, margin in margins(answer).items():
            assert margin == pytest.approx(expected[answer["user_id"], item], abs=1e-4)
    assert sum(answer["num_scored"] - answer["num_cached"] for answer in answers) > 100
    assert_far_apart(alone)


async def test_a_request_in_hand_ends_with_the_adapter_it_began_with(
    app: FastAPI, store: Store, engine: LocalEngine
) -> None:
    taken = asyncio.create_task(recommend(app, "u1", k=6, exclude_seen=False, timeout_seconds=60))
    while not app.state.deps.cascade.scorer.num_under_way:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await send(app, "POST", "/adapters/sft/activate")
    answer = await taken

    expected = await scores_alone(store, SERVED)
    assert answer["adapter"] == "own"
    assert margins(answer) == pytest.approx(
        {item: expected["u1", item] for item in ITEM_IDS}, abs=1e-4
    )


def assert_far_apart(alone: dict[str, dict[tuple[str, str], float]]) -> None:
    """Else a mixed answer would not be seen."""
    differences = [abs(alone["own"][key] - alone["sft"][key]) for key in alone["own"]]
    assert min(differences) > 1e-3
