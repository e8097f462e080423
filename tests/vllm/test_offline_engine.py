"""vLLM in this process answers as the local engine does, and one prompt never spoils another."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from services.core.errors import EngineRefused, ModelUnusable
from services.core.prompts import (
    PREFERENCE_LIMITS,
    SUMMARY_LIMITS,
    GenerationLimits,
    HistoryItem,
    ItemImage,
    Message,
    Messages,
    preference_messages,
    summary_messages,
)
from services.core.records import Item, ItemId
from services.core.scoring import AnswerLogprobs, answer_margin
from services.engines.contract import Engine, hit_limit
from services.engines.local.engine import LocalEngine
from services.engines.vllm_offline.engine import VllmOfflineEngine
from tests.model_training.builders import COLORS, a_cover
from tests.vllm.conftest import ADAPTER, BASE

# One engine for all: it takes its time to load, and belongs to one event loop.
pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module")]

ITEMS = [Item(ItemId(color), f"a calm {color} fox", a_cover(color)) for color in COLORS]
ITEMS.append(Item(ItemId("plain"), "no picture at all"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def in_process() -> AsyncIterator[VllmOfflineEngine]:
    # vLLM leaves variables in its process that servers started by later tests must not inherit.
    environment = dict(os.environ)
    engine = VllmOfflineEngine.load(BASE, ADAPTER)
    yield engine
    await engine.close()
    os.environ.clear()
    os.environ.update(environment)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine.load(BASE, ADAPTER, device="cpu")
    yield engine
    await engine.close()


async def margins(engine: Engine, prompts: Sequence[Messages]) -> list[float]:
    found: list[AnswerLogprobs] = await asyncio.gather(*(engine.score(each) for each in prompts))
    return [answer_margin(yes=answer.yes, no=answer.no) for answer in found]


@pytest.mark.parametrize("num_tokens", [1, 4, 8, 9, 10, 11, 12, 60])
async def test_what_the_token_limit_ended_is_what_the_local_engine_says(
    num_tokens: int, in_process: VllmOfflineEngine, local: LocalEngine
):
    limits = GenerationLimits(max_new_tokens=num_tokens)
    prompts = [summary_messages(item) for item in ITEMS]

    found = [
        [(text, hit_limit(text)) for text in await asyncio.gather(*texts)]
        for texts in ([e.generate(each, limits) for each in prompts] for e in (in_process, local))
    ]

    assert found[0] == found[1]
    assert all(is_cut for _, is_cut in found[0]) == (num_tokens < 8)


async def test_margins_are_those_of_the_local_engine(
    in_process: VllmOfflineEngine, local: LocalEngine, scoring_prompts: list[Messages]
):
    expected = await margins(local, scoring_prompts)

    assert await margins(in_process, scoring_prompts) == pytest.approx(expected, abs=1e-4)
    assert in_process.identity == local.identity


async def test_texts_are_those_of_the_local_engine(
    in_process: VllmOfflineEngine, local: LocalEngine
):
    block = [HistoryItem("a fox", "A red fox."), HistoryItem("a boat", "")]
    prompts = [(summary_messages(item), SUMMARY_LIMITS) for item in ITEMS]
    prompts.append((preference_messages("Likes foxes.", block), PREFERENCE_LIMITS))

    written = await asyncio.gather(*(in_process.generate(*prompt) for prompt in prompts))

    assert written == await asyncio.gather(*(local.generate(*prompt) for prompt in prompts))


async def test_an_image_that_is_none_is_refused_alone(
    in_process: VllmOfflineEngine, scoring_prompts: list[Messages]
):
    broken = (Message("user", "Yes or No?", ItemImage(ItemId("i"), "1", b"no picture")),)

    results = await asyncio.gather(
        *(in_process.score(prompt) for prompt in (scoring_prompts[0], broken, scoring_prompts[1])),
        return_exceptions=True,
    )

    assert isinstance(results[1], EngineRefused)
    assert [results[0], results[2]] == [
        await in_process.score(prompt) for prompt in scoring_prompts[:2]
    ]


async def test_a_history_that_is_too_long_is_shortened_as_the_local_engine_does(
    in_process: VllmOfflineEngine, local: LocalEngine
):
    summary = " ".join(f"A red fox {number}." for number in range(50))
    history = [HistoryItem(f"a fox and a boat {n}", summary) for n in range(60)]
    prompt = preference_messages("", history)
    before = in_process.num_shortened

    text = await in_process.generate(prompt, PREFERENCE_LIMITS)

    assert text == await local.generate(prompt, PREFERENCE_LIMITS)
    assert in_process.num_shortened == before + 1


async def test_what_cannot_be_shortened_is_refused(in_process: VllmOfflineEngine):
    with pytest.raises(EngineRefused, match="tokens"):
        await in_process.generate((Message("user", "fox " * 20_000),), SUMMARY_LIMITS)


async def test_a_merged_checkpoint_scores_as_base_and_adapter_do(
    merged: str, local: LocalEngine, scoring_prompts: list[Messages]
):
    engine = VllmOfflineEngine.load(merged)
    prompts = scoring_prompts[::10]

    assert await margins(engine, prompts) == pytest.approx(await margins(local, prompts), abs=1e-4)
    with pytest.raises(ModelUnusable, match="merged"):
        await engine.generate(summary_messages(ITEMS[0]), SUMMARY_LIMITS)
    await engine.close()
