"""Experiments divide the users among adapters; shadows score along, out of everybody's way."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from services.api.adapters.experiment_arms import draw_arm
from services.api.recommend import shadow_scoring as shadow_module
from services.api.recommend.shadow_scoring import pair_agreement
from services.core.errors import EngineUnavailable
from services.core.records import UserId
from services.state.user_store import Store
from tests.api.adapter_builders import SwappingEngine, put_adapter
from tests.api.builders import an_app, live_adapters, put_user, recommend, send

EXPERIMENT = {
    "name": "rank-or-sft",
    "arms": [
        {"name": "control", "adapter": "own", "weight": 2},
        {"name": "treated", "adapter": "sft", "weight": 1},
    ],
}


@pytest.fixture
def engine() -> SwappingEngine:
    return SwappingEngine(margins={"i2": 1.0, "i3": -1.0})


@pytest.fixture
def app(store: Store, engine: SwappingEngine, tmp_path: Path) -> FastAPI:
    put_adapter(tmp_path, "sft")
    return an_app(store, engine, adapters=live_adapters(store, engine, tmp_path))


async def experiment(app: FastAPI, body: Any = EXPERIMENT) -> dict[str, Any]:
    answer = await send(app, "PUT", "/adapters/experiment", body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def metrics(app: FastAPI) -> str:
    return (await send(app, "GET", "/metrics")).text


# --- experiments ---------------------------------------------------------------------------------


async def test_each_user_is_scored_by_the_adapter_of_the_arm(app: FastAPI) -> None:
    view = await experiment(app)
    assert [arm["share"] for arm in view["experiment"]["arms"]] == pytest.approx([2 / 3, 1 / 3])
    for number in range(12):
        user = f"u{number}"
        answer = await recommend(app, user, candidates=["i2"])
        arm = EXPERIMENT["arms"][draw_arm("rank-or-sft", UserId(user), (2, 1))]  # type: ignore[index]
        assert (answer["experiment"], answer["arm"]) == ("rank-or-sft", arm["name"])
        assert answer["adapter"] == arm["adapter"]
        margin = answer["items"][0]["parts"]["margin"]["value"]
        assert margin == {"own": 1.0, "sft": 2.0}[arm["adapter"]]


async def test_the_arms_are_counted_apart(app: FastAPI, engine: SwappingEngine) -> None:
    await experiment(app)
    answers = [await recommend(app, f"u{n}", candidates=["i2", "i3"]) for n in range(12)]
    num_treated = sum(answer["arm"] == "treated" for answer in answers)
    text = await metrics(app)
    labels = 'adapter="sft",arm="treated"'
    counted = f'msr_adapter_recommendations_total{{{labels},degraded="false",'
    assert 0 < num_treated < 12
    assert f'{counted}experiment="rank-or-sft"}} {num_treated:.1f}' in text
    assert f'msr_adapter_probability_count{{{labels},experiment="rank-or-sft"}}' in text


async def test_an_experiment_is_shared_and_ends_for_all(
    app: FastAPI, store: Store, tmp_path: Path
) -> None:
    other = live_adapters(store, SwappingEngine(), tmp_path)
    await experiment(app)
    await other.look()
    with other.lease_for_user(UserId("u1")) as assigned:
        assert assigned.arm == (await recommend(app, "u1"))["arm"]
    assert (await send(app, "DELETE", "/adapters/experiment")).json()["experiment"] is None
    await other.look()
    with other.lease_for_user(UserId("u1")) as assigned:
        assert (assigned.name, assigned.arm) == ("own", None)


async def test_while_it_runs_nothing_is_activated_or_rolled_back(app: FastAPI) -> None:
    await send(app, "POST", "/adapters/sft/activate")
    await experiment(app)
    for path in ("own/activate", "rollback"):
        answer = await send(app, "POST", f"/adapters/{path}")
        assert answer.status_code == 409
        assert "DELETE /adapters/experiment" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("arms", "status"),
    [
        ([{"name": "a", "adapter": "own"}, {"name": "a", "adapter": "sft"}], 422),
        ([{"name": "a", "adapter": "own"}], 422),
        ([{"name": "a", "adapter": "own"}, {"name": "b", "adapter": "sft", "weight": 0}], 422),
        ([{"name": "a", "adapter": "own"}, {"name": "b", "adapter": "nobody"}], 404),
    ],
)
async def test_an_experiment_that_makes_no_sense_is_refused(
    app: FastAPI, arms: Any, status: int
) -> None:
    answer = await send(app, "PUT", "/adapters/experiment", {"name": "x", "arms": arms})
    assert answer.status_code == status
    assert (await recommend(app))["experiment"] is None


async def test_what_users_take_of_what_was_recommended_counts_for_their_arm(
    app: FastAPI, store: Store
) -> None:
    await experiment(app)
    await put_user(store, "u1", ["i6"])
    answer = await recommend(app, "u1", k=2)
    while not await store.connection.call("KEYS", "*:shown:*"):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    taken = [item["item_id"] for item in answer["items"]]
    other = next(item for item in ("i1", "i2", "i3") if item not in taken)
    for item in (taken[0], taken[0], other):
        await send(app, "POST", "/interactions", {"user_id": "u1", "item_id": item})
    counted = f'msr_arm_outcomes_total{{arm="{answer["arm"]}",experiment="rank-or-sft"}} 1.0'
    assert counted in await metrics(app)


async def test_without_an_experiment_nothing_is_remembered(app: FastAPI, store: Store) -> None:
    await recommend(app, "u1")
    assert await store.connection.call("KEYS", "*:shown:*") == []


# --- shadows -------------------------------------------------------------------------------------


async def let_shadow_run(app: FastAPI) -> None:
    """Until one request is done with."""
    running = asyncio.create_task(app.state.deps.shadow.run())
    async with asyncio.timeout(30):
        while "msr_shadow_requests_total{" not in await metrics(app):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    running.cancel()


async def shadow(app: FastAPI, share: float = 1.0) -> None:
    answer = await send(app, "PUT", "/adapters/shadow", {"adapter": "sft", "share": share})
    assert answer.json()["shadow"] == {"adapter": "sft", "share": share}


async def test_a_shadow_scores_after_the_answer_and_is_compared(
    app: FastAPI, engine: SwappingEngine, store: Store
) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")
    await shadow(app)
    [loaded] = engine.loaded.values()
    answer = await recommend(app, candidates=["i2", "i3", "i4"])
    assert (answer["adapter"], loaded.num_asked) == ("own", 0)
    loaded.by_title = {"i2": 3.0, "i3": 0.5, "i4": -2.0}  # the answer had 1, -1 and 0
    await let_shadow_run(app)
    assert loaded.num_asked == 3
    text = await metrics(app)
    assert 'msr_shadow_requests_total{adapter="sft",outcome="compared"} 1.0' in text
    labels = '{adapter="sft",against="own"}'
    assert f"msr_shadow_probability_difference_count{labels} 3.0" in text
    # Of (i2, i3), (i2, i4) and (i3, i4) the last is turned around.
    assert f"msr_shadow_rank_agreement_sum{labels} 0.666" in text
    assert (await recommend(app, candidates=["i2"]))["num_cached"] == 1


async def test_under_load_the_oldest_that_wait_for_the_shadow_are_dropped(app: FastAPI) -> None:
    await shadow(app)
    for number in range(shadow_module.MAX_WAITING + 3):
        await recommend(app, f"u{number}", candidates=["i2", "i3"])
    text = await metrics(app)
    assert 'msr_shadow_requests_total{adapter="sft",outcome="dropped"} 3.0' in text


async def test_while_anybody_waits_for_the_model_the_shadow_waits_and_then_gives_up(
    app: FastAPI, engine: SwappingEngine, store: Store
) -> None:
    await shadow(app)
    [loaded] = engine.loaded.values()
    await recommend(app, candidates=["i2", "i3"])
    [answered] = app.state.deps.shadow.waiting
    engine.stalled = {"i4"}
    stalled = asyncio.create_task(recommend(app, candidates=["i4"], timeout_seconds=60))
    while "i4" not in engine.asked:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    scoring = asyncio.create_task(app.state.deps.shadow.score(answered))
    await asyncio.sleep(5 * shadow_module.PAUSE_SECONDS)
    assert loaded.num_asked == 0
    stalled.cancel()
    await scoring
    assert loaded.num_asked == 2


async def test_what_waited_too_long_is_dropped(app: FastAPI, engine: SwappingEngine) -> None:
    await shadow(app)
    [loaded] = engine.loaded.values()
    await recommend(app, candidates=["i2", "i3"])
    [answered] = app.state.deps.shadow.waiting
    await app.state.deps.shadow.score(replace(answered, answered_at=-math.inf))
    assert loaded.num_asked == 0
    assert 'outcome="dropped"} 1.0' in await metrics(app)


async def test_a_shadow_that_fails_is_counted_and_the_next_is_scored(
    app: FastAPI, engine: SwappingEngine
) -> None:
    await shadow(app)
    [loaded] = engine.loaded.values()
    loaded.failure = EngineUnavailable("gone")
    await recommend(app, candidates=["i2", "i3"])
    await let_shadow_run(app)
    assert 'msr_shadow_requests_total{adapter="sft",outcome="failed"} 1.0' in await metrics(app)


async def test_only_a_sample_is_scored_and_nothing_once_it_is_cleared(app: FastAPI) -> None:
    await shadow(app, share=1e-9)
    await recommend(app, candidates=["i2", "i3"])
    assert not app.state.deps.shadow.waiting
    await shadow(app)
    assert (await send(app, "DELETE", "/adapters/shadow")).json()["shadow"] is None
    await recommend(app, candidates=["i2", "i3"])
    assert not app.state.deps.shadow.waiting


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [([1.0, 2.0, 3.0], 1.0), ([3.0, 2.0, 1.0], 0.0), ([1.0, 3.0, 2.0], 2 / 3), ([1, 1, 1], None)],
)
def test_agreement_is_the_share_of_pairs_in_one_order(
    theirs: list[float], expected: float | None
) -> None:
    assert pair_agreement([10.0, 20.0, 30.0], theirs) == expected
