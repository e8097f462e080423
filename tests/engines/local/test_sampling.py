"""Sampled texts of the local engine: each follows from its prompt and its seed alone."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from services.core.prompts import GenerationLimits, HistoryItem, Sampling, preference_messages
from services.deployment.assemble import DEMO_WEIGHTS
from services.engines.local.engine import LocalEngine

PAPER = Sampling(temperature=0.6, top_p=0.9)
# Hot enough that the demo model, which is sure of its words, writes another text for most seeds.
HOT = GenerationLimits(24, Sampling(temperature=1.8), seed=1)


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    loaded = LocalEngine.load(str(DEMO_WEIGHTS / "base"))
    yield loaded
    asyncio.run(loaded.close())


def a_prompt(number: int = 1):
    items = [
        HistoryItem(f"The calm fox, part {k}", "A red fox in flat style.") for k in range(number)
    ]
    return preference_messages("", items)


async def test_a_text_is_the_same_alone_and_among_others(engine: LocalEngine):
    alone = [await engine.generate(a_prompt(k % 3 + 1), replace(HOT, seed=k)) for k in range(8)]

    together = await asyncio.gather(
        *(engine.generate(a_prompt(k % 3 + 1), replace(HOT, seed=k)) for k in range(8))
    )

    assert together == alone


async def test_another_seed_draws_another_text(engine: LocalEngine):
    texts = {await engine.generate(a_prompt(), replace(HOT, seed=seed)) for seed in range(6)}

    assert len(texts) > 1


async def test_hardly_any_temperature_writes_the_greedy_text(engine: LocalEngine):
    cold = GenerationLimits(24, Sampling(temperature=1e-4), seed=7)

    assert await engine.generate(a_prompt(), cold) == await engine.generate(
        a_prompt(), GenerationLimits(24)
    )


async def test_a_tiny_top_p_leaves_only_the_likeliest_token(engine: LocalEngine):
    narrow = GenerationLimits(24, Sampling(temperature=1.8, top_p=1e-6), seed=7)

    assert await engine.generate(a_prompt(), narrow) == await engine.generate(
        a_prompt(), GenerationLimits(24)
    )
