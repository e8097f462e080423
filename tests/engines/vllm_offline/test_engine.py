"""The in-process engine around vLLM: whoever waits is answered, whatever becomes of vLLM.

Only faults that vLLM cannot be made to show are shown here, by a core in its place; what it answers
is tested in `tests/vllm/`.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import pytest

from services.core.errors import EngineRefused, EngineUnavailable, ModelUnusable
from services.core.prompts import SUMMARY_LIMITS, GenerationLimits, Message, Messages
from services.engines.contract import EngineIdentity
from services.engines.vllm_offline.core import Answer, PreparedPrompt
from services.engines.vllm_offline.engine import VllmOfflineEngine

IDENTITY = EngineIdentity("m", "a")


class FakeCore:
    """Answers every prompt with its own text, one a step, once it may go on.

    Its steps fail when they come to "fail"; "refuse" is not taken, nor prepared is "unreadable".
    """

    max_in_hand = 4

    def __init__(self) -> None:
        self.may_step = threading.Event()
        self.may_step.set()
        self.in_hand: dict[str, str] = {}
        self.aborted: list[str] = []
        self.is_shut_down = False

    def prepare(self, messages: Messages, limits: GenerationLimits | None) -> PreparedPrompt:
        text = messages[0].text
        if text == "unreadable":
            raise EngineRefused(text)
        return PreparedPrompt(text, limits, was_shortened=text == "long")

    def add(self, number: str, prompt: PreparedPrompt) -> None:
        if prompt.rendered == "refuse":
            raise EngineRefused(prompt.rendered)
        self.in_hand[number] = prompt.rendered

    def step(self) -> Iterator[tuple[str, Answer]]:
        self.may_step.wait()
        for number in list(self.in_hand)[:1]:
            text = self.in_hand.pop(number)
            if text == "fail":
                raise RuntimeError("out of memory")
            yield number, text

    def abort(self, numbers: Sequence[str]) -> None:
        self.aborted += [self.in_hand.pop(number) for number in numbers]

    def shutdown(self) -> None:
        self.is_shut_down = True


@pytest.fixture
def core() -> FakeCore:
    return FakeCore()


@pytest.fixture
async def engine(core: FakeCore) -> AsyncIterator[VllmOfflineEngine]:
    engine = VllmOfflineEngine(lambda: core, IDENTITY)
    yield engine
    await engine.close()


async def answers(engine: VllmOfflineEngine, *texts: str) -> list[str | BaseException]:
    asked = (engine.generate((Message("user", text),), SUMMARY_LIMITS) for text in texts)
    return await asyncio.gather(*asked, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  # another thread makes it so
        await asyncio.sleep(0)


async def test_everybody_gets_their_own_answer_however_many_wait(engine: VllmOfflineEngine):
    texts = [f"text {n}" for n in range(20)]

    assert await answers(engine, *texts) == texts


@pytest.mark.parametrize("bad", ["unreadable", "refuse"])
async def test_a_prompt_that_is_not_taken_spoils_no_other(engine: VllmOfflineEngine, bad: str):
    first, refused, last = await answers(engine, "first", bad, "last")

    assert (first, last) == ("first", "last")
    assert isinstance(refused, EngineRefused)


async def test_shortened_prompts_are_counted(engine: VllmOfflineEngine):
    await answers(engine, "short", "long", "long")

    assert engine.num_shortened == 2


async def test_after_a_step_that_failed_everybody_hears_why(
    engine: VllmOfflineEngine, core: FakeCore
):
    core.may_step.clear()
    asked = asyncio.create_task(answers(engine, "fail", "b", "c", "d", "e", "f"))
    await until(lambda: "fail" in core.in_hand.values())
    core.may_step.set()

    results = await asked

    assert all(isinstance(result, EngineUnavailable) for result in results)
    assert all("out of memory" in str(result) for result in results)
    assert core.is_shut_down


async def test_closing_answers_those_who_still_wait(core: FakeCore):
    engine = VllmOfflineEngine(lambda: core, IDENTITY)
    core.may_step.clear()
    asked = asyncio.create_task(answers(engine, "a", "b", "c", "d", "e", "f"))
    await until(lambda: bool(core.in_hand))
    closing = asyncio.create_task(engine.close())
    await asyncio.sleep(0)  # lets it reach the thread
    core.may_step.set()
    await closing

    results = await asked

    assert isinstance(results[-1], EngineUnavailable)
    assert await answers(engine, "late") == [results[-1]]


async def test_a_prompt_nobody_waits_for_any_more_is_dropped(
    engine: VllmOfflineEngine, core: FakeCore
):
    core.may_step.clear()
    first = asyncio.create_task(answers(engine, "a"))
    await until(lambda: bool(core.in_hand))
    abandoned = asyncio.create_task(answers(engine, "b"))
    await until(lambda: bool(engine._arrived))
    abandoned.cancel()
    await asyncio.wait([abandoned])
    core.may_step.set()

    assert await first == ["a"]
    assert await answers(engine, "c") == ["c"]
    assert core.aborted == ["b"]


async def test_a_merged_model_writes_no_texts(core: FakeCore):
    engine = VllmOfflineEngine(lambda: core, IDENTITY, merged=True)

    with pytest.raises(ModelUnusable, match="merged"):
        await engine.generate((Message("user", "a"),), SUMMARY_LIMITS)
    await engine.close()


def test_what_keeps_vllm_from_starting_is_raised():
    def fail() -> FakeCore:
        raise ModelUnusable("no weights; name a checkpoint folder")

    with pytest.raises(ModelUnusable, match="no weights"):
        VllmOfflineEngine(fail, IDENTITY)
