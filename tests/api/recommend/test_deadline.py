import asyncio

import pytest

from services.core.errors import (
    AnswerTokenMissing,
    EngineError,
    EngineOverloaded,
    EngineRefused,
    EngineTimeout,
    EngineUnavailable,
)
from services.core.prompts import Messages
from services.core.scoring import AnswerLogprobs
from services.state.user_store import Store
from tests.api.builders import ScriptedEngine, an_app, ids_of, recommend, send

# A deadline that is waited for in full, and in which a busy machine still gets to every prompt.
ENOUGH_SECONDS = 1.0


async def test_a_late_candidate_keeps_its_cheap_place_and_the_others_are_ranked(
    store: Store,
) -> None:
    engine = ScriptedEngine({"i1": -1.0, "i3": 1.0, "i4": 2.0}, stalled=["i2"])
    answer = await recommend(
        an_app(store, engine), candidates=["i1", "i2", "i3", "i4"], timeout_seconds=ENOUGH_SECONDS
    )
    assert ids_of(answer) == ["i4", "i2", "i3", "i1"]
    assert (answer["degraded"], answer["reason"], answer["num_scored"]) == (True, "deadline", 3)


async def test_an_engine_that_never_answers_leaves_the_cheap_order(store: Store) -> None:
    engine = ScriptedEngine(stalled=["i1", "i2", "i3"])
    answer = await recommend(
        an_app(store, engine, timeout_seconds=ENOUGH_SECONDS), candidates=["i3", "i2", "i1"]
    )
    assert ids_of(answer) == ["i1", "i2", "i3"]
    assert answer["reason"] == "deadline"


async def test_work_that_was_not_awaited_is_cancelled(store: Store) -> None:
    engine = ScriptedEngine(stalled=["i1", "i2"])
    await recommend(
        an_app(store, engine), candidates=["i1", "i2", "i3"], timeout_seconds=ENOUGH_SECONDS
    )
    await asyncio.wait_for(engine.two_cancelled.wait(), timeout=10)
    assert engine.cancelled == {"i1", "i2"}


async def test_what_was_scored_before_the_deadline_is_not_asked_again(store: Store) -> None:
    engine = ScriptedEngine({"i3": 1.0}, stalled=["i2"])
    app = an_app(store, engine)
    await recommend(app, candidates=["i2", "i3"], timeout_seconds=ENOUGH_SECONDS)
    engine.stalled.clear()
    engine.asked.clear()
    answer = await recommend(app, candidates=["i2", "i3"])
    assert engine.asked == ["i2"]
    assert not answer["degraded"]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (EngineUnavailable("gone"), "engine-unavailable"),
        (EngineOverloaded("full"), "engine-overloaded"),
        (EngineTimeout("late"), "engine-timeout"),
        (EngineRefused("no"), "engine-refused"),
        (AnswerTokenMissing("no Yes"), "engine-failed"),
    ],
)
async def test_a_failing_engine_degrades_the_answer_and_never_fails_it(
    store: Store, failure: EngineError, reason: str
) -> None:
    answer = await recommend(an_app(store, ScriptedEngine(failure=failure)), k=3)
    assert ids_of(answer) == ["i1", "i2", "i3"]
    assert (answer["degraded"], answer["reason"]) == (True, reason)


async def test_one_refused_item_does_not_cost_the_others_their_scores(store: Store) -> None:
    engine = ScriptedEngine({"i3": 1.0}, failure=EngineRefused("no"), failing=["i1"])
    answer = await recommend(an_app(store, engine), candidates=["i1", "i2", "i3"])
    assert ids_of(answer) == ["i1", "i3", "i2"]
    assert (answer["reason"], answer["num_scored"]) == ("engine-refused", 2)


async def test_a_request_keeps_its_bound_on_prompts_in_flight(store: Store) -> None:
    engine = ScriptedEngine(stalled=["i1", "i2", "i3", "i4"])
    app = an_app(store, engine, max_in_flight=2, timeout_seconds=ENOUGH_SECONDS)
    await recommend(app, candidates=["i1", "i2", "i3", "i4"])
    assert len(engine.asked) == 2


class DroppingEngine(ScriptedEngine):
    async def score(self, messages: Messages) -> AnswerLogprobs:
        raise asyncio.CancelledError


async def test_an_engine_that_drops_prompts_counts_as_away(store: Store) -> None:
    answer = await recommend(an_app(store, DroppingEngine()), k=3)
    assert ids_of(answer) == ["i1", "i2", "i3"]
    assert answer["reason"] == "engine-unavailable"


async def test_a_frozen_engine_is_asked_by_few_and_the_others_are_answered_at_once(
    store: Store,
) -> None:
    engine = ScriptedEngine(stalled=["i1", "i2"])
    app = an_app(store, engine)
    waiting = asyncio.create_task(
        recommend(app, candidates=["i1", "i2"], timeout_seconds=30 * ENOUGH_SECONDS)
    )
    await engine.first_asked.wait()
    await asyncio.sleep(ENOUGH_SECONDS / 2)  # the silence that shows it
    answer = await recommend(app, candidates=["i1", "i2"], timeout_seconds=ENOUGH_SECONDS)
    waiting.cancel()

    assert (answer["degraded"], answer["reason"], answer["num_scored"]) == (True, "shed", 0)
    assert sorted(engine.asked) == ["i1", "i2"]
    assert answer["timings"]["scoring_seconds"] < ENOUGH_SECONDS / 2


async def test_an_unknown_priority_is_refused(store: Store) -> None:
    body = {"user_id": "u1", "priority": "urgent"}
    response = await send(an_app(store), "POST", "/recommend", body)

    assert response.status_code == 422
