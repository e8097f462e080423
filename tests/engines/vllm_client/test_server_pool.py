"""Servers that fail: others take over, the failed come back, and no answer is ever guessed."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import aiohttp
import httpx
import pytest
from structlog.testing import capture_logs

from services.core.errors import (
    EngineOverloaded,
    EngineRefused,
    EngineTimeout,
    EngineUnavailable,
    ModelUnusable,
)
from services.core.prompts import GenerationLimits
from services.core.scoring import AnswerLogprobs
from services.engines.vllm_client.engine import VllmEngine
from tests.engines.conftest import a_prompt
from tests.engines.vllm_client.vllm_servers import (
    FakeServer,
    a_completion,
    an_engine,
    an_error,
    has_logged,
    until,
)

LIMITS = GenerationLimits(max_new_tokens=7)
ANSWER = AnswerLogprobs(yes=-0.25, no=-1.5)


def two_servers() -> tuple[FakeServer, FakeServer]:
    return FakeServer("http://a"), FakeServer("http://b")


async def score_many(engine: VllmEngine, number: int = 20) -> list[AnswerLogprobs]:
    """Of that many items, so that every replica gets some."""
    items = (a_prompt(f"title {k}", None) for k in range(number))
    return await asyncio.gather(*(engine.score(item) for item in items))


async def failure(asking: Awaitable[object]) -> BaseException:
    [outcome] = await asyncio.gather(asking, return_exceptions=True)
    assert isinstance(outcome, BaseException)
    return outcome


# --- others take over ----------------------------------------------------------------------------


async def test_what_a_dead_server_does_not_take_another_one_does():
    a, b = two_servers()
    engine = await an_engine(a, b)
    a.down = True

    assert await score_many(engine) == [ANSWER] * 20
    assert len(b.bodies) == 20


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_one_server_fails_at_another_one_answers(status: int):
    a, b = two_servers()
    a.complete = lambda _: an_error(status)
    engine = await an_engine(a, b)

    assert await score_many(engine) == [ANSWER] * 20


async def test_a_frozen_server_is_found_out_and_its_prompts_move_within_their_time():
    a, b = two_servers()
    engine = await an_engine(a, b, timeout_seconds=2.0)
    a.frozen = True

    assert await score_many(engine) == [ANSWER] * 20
    assert a.num_running == 0


async def test_a_server_that_computes_for_long_is_not_taken_for_frozen():
    server = FakeServer()

    async def answer_late(_: object) -> httpx.Response:
        await server.asked_for_health.wait()
        return a_completion()

    server.complete = answer_late
    engine = await an_engine(server, timeout_seconds=4.0)

    with capture_logs() as logs:
        assert await engine.score(a_prompt()) == ANSWER
    assert logs == []


async def test_an_items_prompts_stay_with_their_replica():
    a, b = two_servers()
    engine = await an_engine(a, b)
    for taste in ("red", "blue", "green"):
        await engine.score(a_prompt(taste=taste))

    assert sorted([len(a.bodies), len(b.bodies)]) == [0, 3]


# --- nobody is left ------------------------------------------------------------------------------


async def test_without_patience_a_dead_server_is_an_error_at_once():
    server = FakeServer()
    engine = await an_engine(server)
    server.down = True

    errors = [await failure(engine.score(a_prompt())) for _ in range(3)]
    assert all("http://a cannot be reached (refused); is the" in str(error) for error in errors)
    assert [type(error) for error in errors] == [EngineUnavailable] * 3
    assert len({id(error) for error in errors}) == 3  # one object would gather tracebacks


async def test_when_all_are_dead_each_is_named():
    a, b = two_servers()
    engine = await an_engine(a, b)
    a.down = b.down = True
    await asyncio.gather(engine.score(a_prompt()), return_exceptions=True)

    with pytest.raises(EngineUnavailable, match=r"none of 2 servers .*http://a.*http://b"):
        await engine.score(a_prompt())


async def test_a_server_that_never_answers_is_an_error_in_time():
    server = FakeServer()
    engine = await an_engine(server, timeout_seconds=0.2)
    server.frozen = True

    with pytest.raises(EngineTimeout, match="http://a"):
        await engine.score(a_prompt())


async def test_a_busy_server_is_not_asked_before_the_time_it_names():
    server = FakeServer()
    server.complete = lambda _: httpx.Response(429, headers={"retry-after": "50"}, text="busy")
    engine = await an_engine(server)

    for _ in range(3):
        with pytest.raises(EngineOverloaded, match="http://a"):
            await engine.score(a_prompt())
    assert len(server.bodies) == 1


# --- patience ------------------------------------------------------------------------------------


async def test_who_is_patient_gets_the_answer_of_a_server_that_came_back():
    server = FakeServer()
    engine = await an_engine(server, patience_seconds=60)
    server.down = True
    asking = asyncio.create_task(score_many(engine, 3))
    with capture_logs() as logs:
        await until(has_logged(logs, "server_marked_down"))
    server.down = False

    assert len(await asking) == 3


async def test_patience_ends():
    server = FakeServer()
    engine = await an_engine(server, patience_seconds=0.2)
    server.down = True

    with pytest.raises(EngineUnavailable, match="http://a"):
        await engine.score(a_prompt())


async def test_waiting_for_the_first_answer_is_told_once():
    server = FakeServer()
    server.down = True

    with capture_logs() as logs, pytest.raises(EngineUnavailable):
        await an_engine(server, patience_seconds=0.2)

    [told] = [event["error"] for event in logs if event["event"] == "servers_awaited"]
    assert "no vLLM server answers" in told


@pytest.mark.parametrize(
    "fault", [an_error(503), an_error(500), httpx.Response(200, text="<html>")]
)
async def test_who_is_patient_tries_again(fault: httpx.Response):
    answers = iter([fault, a_completion()])
    engine = await an_engine(FakeServer(complete=lambda _: next(answers)), patience_seconds=60)

    assert await engine.score(a_prompt()) == ANSWER


async def test_a_prompt_that_alone_keeps_failing_is_refused_so_that_a_step_can_go_on():
    def fail_at_the_poison(body: dict[str, Any]) -> httpx.Response:
        return an_error(500) if "poison" in str(body["messages"]) else a_completion()

    engine = await an_engine(FakeServer(complete=fail_at_the_poison), patience_seconds=60)

    with pytest.raises(EngineRefused, match="where others were answered"):
        await engine.score(a_prompt("poison"))
    assert await engine.score(a_prompt("good")) == ANSWER


async def test_a_refused_prompt_is_not_tried_again():
    server = FakeServer(complete=lambda _: an_error(400, "Failed to load image"))
    engine = await an_engine(server, patience_seconds=60)

    with pytest.raises(EngineRefused, match="Failed to load image"):
        await engine.score(a_prompt())
    assert len(server.bodies) == 1


# --- back again ----------------------------------------------------------------------------------


async def test_a_connection_that_was_cut_is_tried_again_on_the_same_server():
    cuts = iter([True, False])

    def cut_once(_: object) -> httpx.Response:
        if next(cuts):
            raise aiohttp.ServerDisconnectedError
        return a_completion()

    engine = await an_engine(FakeServer(complete=cut_once))

    assert await engine.score(a_prompt()) == ANSWER


async def test_a_connection_that_was_cut_by_a_restart_with_another_model_answers_nothing():
    server = FakeServer()
    engine = await an_engine(server)

    def restart(_: object) -> httpx.Response:
        server.roots = {"base": "weights of base", "lora": "other weights"}
        server.complete = lambda _: a_completion(_70=-9.0, _71=-9.0)
        raise aiohttp.ClientOSError("cut")

    server.complete = restart
    with pytest.raises(ModelUnusable, match="lists other models or weights"):
        await engine.score(a_prompt())
    assert len(server.bodies) == 1


async def test_a_server_that_comes_back_is_presumed_to_hold_no_images():
    server = FakeServer()
    engine = await an_engine(server, patience_seconds=60)
    await engine.score(a_prompt())
    server.down = True
    asking = asyncio.create_task(engine.score(a_prompt()))
    with capture_logs() as logs:
        await until(has_logged(logs, "server_marked_down"))
    server.down = False

    await asking
    assert server.bodies[-1]["messages"][0]["content"][0]["image_url"] is not None


async def test_a_server_that_was_restarted_with_another_model_stays_out():
    a, b = two_servers()
    engine = await an_engine(a, b)
    a.complete = lambda _: an_error(404, "The model `lora` does not exist.")
    a.roots = {"base": "other weights", "lora": "other weights"}
    with capture_logs() as logs:
        assert await score_many(engine) == [ANSWER] * 20
        await until(has_logged(logs, "server_still_down"))

    assert "other weights" in str(logs)
    a.complete = lambda _: a_completion(_70=-9.0, _71=-9.0)
    assert await score_many(engine) == [ANSWER] * 20


async def test_a_lone_server_with_another_model_is_reported_as_that():
    server = FakeServer(complete=lambda _: an_error(404, "The model `lora` does not exist."))
    engine = await an_engine(server)

    with pytest.raises(ModelUnusable, match="http://a"):
        await engine.score(a_prompt())


async def test_no_task_is_left_behind():
    a, b = two_servers()
    engine = await an_engine(a, b)
    a.down = True
    await score_many(engine)

    await engine.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- the circuit breaker -------------------------------------------------------------------------


async def give_up(engine: VllmEngine, *, after_seconds: float = 0.3) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.score(a_prompt()), after_seconds)


async def test_a_frozen_server_is_waited_for_a_few_times_and_then_no_more():
    server = FakeServer()
    engine = await an_engine(server)
    server.frozen = True
    for _ in range(3):
        await give_up(engine)

    with pytest.raises(EngineTimeout, match="answers no prompt in the time"):
        await engine.score(a_prompt())
    assert engine.breaker_states == {"http://a": "open"}
    assert server.num_running == 0


async def test_a_server_that_thaws_is_back_by_itself_and_trusted_after_one_answer():
    server = FakeServer()
    engine = await an_engine(server)
    server.frozen = True
    for _ in range(3):
        await give_up(engine)
    with capture_logs() as logs:
        server.frozen = False
        await until(has_logged(logs, "server_marked_up"))

    assert engine.breaker_states == {"http://a": "half-open"}
    assert await engine.score(a_prompt()) == ANSWER
    assert engine.breaker_states == {"http://a": "closed"}


async def test_a_server_that_passes_its_checks_and_answers_no_prompt_is_tried_by_one():
    server = FakeServer(complete=lambda _: asyncio.Event().wait())
    engine = await an_engine(server)
    for _ in range(3):
        await give_up(engine)
    await until(lambda: engine.breaker_states == {"http://a": "half-open"})
    await give_up(engine)

    assert engine.breaker_states == {"http://a": "open"}


async def test_a_slow_server_whose_prompts_are_given_up_stays_in_use():
    server = FakeServer()
    engine = await an_engine(server)

    async def answer_every_other(body: dict[str, Any]) -> httpx.Response:
        await asyncio.sleep(1e3 if "slow" in str(body["messages"]) else 0.1)
        return a_completion()

    server.complete = answer_every_other
    for _ in range(6):
        answered = asyncio.create_task(engine.score(a_prompt("quick")))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.score(a_prompt("slow")), 0.3)
        assert await answered == ANSWER

    assert engine.breaker_states == {"http://a": "closed"}


async def test_a_server_that_is_back_gets_one_prompt_until_it_has_answered_that():
    first = asyncio.Event()

    async def answer_later(_: object) -> httpx.Response:
        await first.wait()
        return a_completion()

    server = FakeServer(complete=answer_later)
    engine = await an_engine(server)
    for _ in range(3):
        await give_up(engine)
    await until(lambda: engine.breaker_states == {"http://a": "half-open"})
    server.bodies.clear()

    trying = asyncio.create_task(engine.score(a_prompt()))
    await until(lambda: server.bodies)
    with pytest.raises(EngineUnavailable, match="has yet to answer its first prompt"):
        await engine.score(a_prompt())
    assert len(server.bodies) == 1

    first.set()
    assert await trying == ANSWER
    assert await score_many(engine) == [ANSWER] * 20


async def test_patient_prompts_wait_for_the_first_of_a_server_that_is_back():
    server = FakeServer()
    engine = await an_engine(server, patience_seconds=60.0)
    server.down = True
    asking = asyncio.create_task(score_many(engine))
    await until(lambda: engine.breaker_states == {"http://a": "open"})
    server.down = False

    assert await asking == [ANSWER] * 20
    assert len(server.bodies) == 20
