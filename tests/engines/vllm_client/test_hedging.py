"""A second replica for what is late, as long as it pays."""

import asyncio

import httpx
import pytest

from services.core.errors import EngineRefused
from services.core.prompts import GenerationLimits
from services.core.scoring import AnswerLogprobs
from services.engines.contract import HEDGE_SHARE
from services.engines.vllm_client.engine import VllmEngine
from services.engines.vllm_client.hedging import MOST_SAVED, NUM_TO_JUDGE, Hedging
from tests.engines.conftest import a_prompt
from tests.engines.vllm_client.vllm_servers import (
    FakeServer,
    a_completion,
    an_engine,
    an_error,
    until,
)

ANSWER = AnswerLogprobs(yes=-0.25, no=-1.5)
# Earns more hedges than any test here needs.
NUM_WARM = 10 * NUM_TO_JUDGE


class Stalling:
    """Answers at once, until it stalls: then not before `gate` opens."""

    def __init__(self) -> None:
        self.stalls = False
        self.gate = asyncio.Event()

    async def __call__(self, _: object) -> httpx.Response:
        if self.stalls:
            await self.gate.wait()
        return a_completion()


async def two_warm_servers() -> tuple[VllmEngine, FakeServer, FakeServer]:
    """An engine that knows how long answers take, its prompt's own server, and the other one."""
    a, b = (FakeServer(f"http://{name}", Stalling()) for name in "ab")
    engine = await an_engine(a, b)
    for _ in range(NUM_WARM):
        await engine.score(a_prompt())
    return (engine, a, b) if a.bodies else (engine, b, a)


def stall(server: FakeServer) -> Stalling:
    assert isinstance(server.complete, Stalling)
    server.complete.stalls = True
    return server.complete


async def test_a_late_score_comes_from_the_second_replica_and_the_first_is_cancelled():
    engine, own, other = await two_warm_servers()
    stall(own)

    assert await engine.score(a_prompt()) == ANSWER
    assert (own.num_running, len(other.bodies)) == (0, 1)


async def test_the_first_answer_counts_also_if_it_is_late():
    engine, own, other = await two_warm_servers()
    gate = stall(own).gate
    stall(other)
    asking = asyncio.create_task(engine.score(a_prompt()))
    await until(lambda: other.num_running)
    gate.set()

    assert await asking == ANSWER
    assert other.num_running == 0


async def test_a_second_replica_that_fails_leaves_it_to_the_first():
    engine, own, other = await two_warm_servers()
    gate = stall(own).gate
    other.complete = lambda _: an_error(500)
    asking = asyncio.create_task(engine.score(a_prompt()))
    await until(lambda: other.bodies)
    gate.set()

    assert await asking == ANSWER


async def test_a_prompt_that_the_second_replica_refuses_is_refused():
    engine, own, other = await two_warm_servers()
    stall(own)
    other.complete = lambda _: an_error(400, "no such picture")

    with pytest.raises(EngineRefused, match="no such picture"):
        await engine.score(a_prompt())
    assert own.num_running == 0


async def test_no_more_than_a_share_of_the_prompts_is_asked_twice():
    engine, own, _ = await two_warm_servers()
    stall(own)
    asking = [asyncio.create_task(engine.score(a_prompt())) for _ in range(3 * NUM_WARM)]
    await asyncio.wait(asking, timeout=2.0)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)

    assert 0 < sum(engine.num_hedges.values()) <= HEDGE_SHARE * 4 * NUM_WARM


async def test_a_replica_with_as_much_to_do_is_not_asked():
    engine, own, other = await two_warm_servers()
    stall(own)
    gate = stall(other).gate
    busy = [asyncio.create_task(engine.score(a_prompt(color=None))) for _ in range(4)]
    await until(lambda: own.num_running == other.num_running == 2)
    await asyncio.sleep(0.2)
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
    gate.set()

    assert sum(engine.num_hedges.values()) == 0


def test_what_is_saved_up_for_a_bad_moment_is_bounded():
    hedging = Hedging(HEDGE_SHARE)
    for _ in range(NUM_WARM):
        hedging.note_prompt()
        hedging.note_answer(0.01)
    assert hedging.late_after_seconds == pytest.approx(0.01)
    for _ in range(100):
        if hedging.late_after_seconds is None:
            break
        hedging.spend()

    assert hedging.num_hedged == MOST_SAVED


async def test_texts_are_never_asked_twice():
    engine, own, other = await two_warm_servers()
    gate = stall(own).gate
    writing = asyncio.create_task(engine.generate(a_prompt(), GenerationLimits(max_new_tokens=7)))
    await until(lambda: own.num_running)
    await asyncio.sleep(0.2)
    gate.set()
    await writing

    assert not other.bodies
