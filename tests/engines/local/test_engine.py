"""The local engine: batched without one prompt touching another, and beside the event loop."""

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from transformers import LlavaNextForConditionalGeneration

from model_training.demo.checkpoint import load_checkpoint
from services.core.errors import (
    EngineOverloaded,
    EngineRefused,
    EngineUnavailable,
    ModelUnusable,
)
from services.core.prompts import SUMMARY_LIMITS, GenerationLimits, Message, summary_messages
from services.core.records import Item, ItemId
from services.core.scoring import answer_margin
from services.deployment.assemble import DEMO_WEIGHTS
from services.engines.contract import EngineIdentity, GeneratedText, hit_limit
from services.engines.local.engine import LocalEngine
from services.engines.local.model import LocalModel
from services.engines.rendering import chat_content, prompt_images
from tests.engines.conftest import a_prompt

SHORT = GenerationLimits(max_new_tokens=4)
PROMPTS = [
    a_prompt(),
    a_prompt("a much longer title of a fox in the snow", "blue"),
    a_prompt("no cover at all", None),
    a_prompt(taste="likes everything that is red, dotted and calm"),
]


@pytest.fixture
async def engine(checkpoint: Path) -> AsyncIterator[LocalEngine]:
    engine = LocalEngine.load(str(checkpoint), device="cpu")
    yield engine
    await engine.close()


async def test_a_score_does_not_depend_on_what_else_is_in_the_batch(engine: LocalEngine):
    alone = [await engine.score(prompt) for prompt in PROMPTS]

    together = await asyncio.gather(*(engine.score(prompt) for prompt in PROMPTS * 3))

    for one, other in zip(alone * 3, together, strict=True):
        assert one.yes == pytest.approx(other.yes, abs=1e-5)
        assert one.no == pytest.approx(other.no, abs=1e-5)


async def test_a_text_does_not_depend_on_what_else_is_in_the_batch(engine: LocalEngine):
    alone = [await engine.generate(prompt, SHORT) for prompt in PROMPTS]

    assert alone == await asyncio.gather(*(engine.generate(prompt, SHORT) for prompt in PROMPTS))


async def test_a_text_says_whether_the_token_limit_ended_it():
    engine = LocalEngine.load(str(DEMO_WEIGHTS / "base"), device="cpu")
    prompts = [
        summary_messages(Item(ItemId(t), t)) for t in ("A calm fox", "Rain", "Tales of a house")
    ]
    whole = [await engine.generate(prompt, SUMMARY_LIMITS) for prompt in prompts]

    # In one batch, some texts end before others.
    for num_tokens in range(1, 16):
        limits = GenerationLimits(max_new_tokens=num_tokens)
        texts = await asyncio.gather(*(engine.generate(prompt, limits) for prompt in prompts))
        for text, full in zip(texts, whole, strict=True):
            assert hit_limit(text) or text == full
            assert full.startswith(text)
        if num_tokens < 3:
            assert all(map(hit_limit, texts))
    assert not any(map(hit_limit, whole))
    await engine.close()


def test_a_text_keeps_its_flag_on_its_way_to_another_process():
    text = GeneratedText("a fox", hit_limit=True)

    assert hit_limit(pickle.loads(pickle.dumps(text)))
    assert not hit_limit("a fox")


async def test_scores_are_the_models_own_log_probabilities(engine: LocalEngine, checkpoint: Path):
    model, processor = load_checkpoint(checkpoint)
    text = processor.apply_chat_template(
        chat_content(PROMPTS[0]), tokenize=False, add_generation_prompt=True
    )
    inputs = processor(
        text=text, images=prompt_images(PROMPTS[0]), add_special_tokens=False, return_tensors="pt"
    )
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1].float()
    yes, no = (
        processor.tokenizer.encode(f" {w}", add_special_tokens=False)[0] for w in ("Yes", "No")
    )

    answer = await engine.score(PROMPTS[0])

    expected = answer_margin(yes=float(logits[yes]), no=float(logits[no]))
    assert answer_margin(yes=answer.yes, no=answer.no) == pytest.approx(expected, abs=1e-5)


async def test_a_cover_changes_the_score(engine: LocalEngine):
    red, blue = await asyncio.gather(
        engine.score(a_prompt(color="red")), engine.score(a_prompt(color="blue"))
    )

    assert abs(red.yes - blue.yes) > 1e-4


async def test_the_adapter_scores_while_the_base_model_writes(
    engine: LocalEngine, checkpoint: Path, adapter: Path
):
    adapted = LocalEngine.load(str(checkpoint), str(adapter), device="cpu")
    try:
        assert (await adapted.score(PROMPTS[0])).yes != (await engine.score(PROMPTS[0])).yes
        assert await adapted.generate(PROMPTS[0], SHORT) == await engine.generate(PROMPTS[0], SHORT)
        assert adapted.identity.model == engine.identity.model
        assert adapted.identity.adapter != engine.identity.adapter == ""
    finally:
        await adapted.close()


async def test_a_prompt_that_cannot_be_taken_fails_alone(engine: LocalEngine):
    endless = (Message("user", "fox " * 20_000),)

    results = await asyncio.gather(
        *(engine.score(p) for p in (PROMPTS[0], endless, PROMPTS[1])), return_exceptions=True
    )

    assert [isinstance(result, EngineRefused) for result in results] == [False, True, False]
    assert "tokens" in str(results[1])


async def test_a_prompt_that_is_too_long_is_shortened_and_counted(engine: LocalEngine):
    free = "fox " * 5_000
    too_long = (Message("user", f"{free}Yes or No?", free=((0, len(free) - 1),)),)

    await asyncio.gather(engine.score(too_long), engine.generate(PROMPTS[0], SHORT))

    assert engine.num_shortened == 1


async def test_the_event_loop_goes_on_while_the_model_computes(engine: LocalEngine):
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    await engine.generate(PROMPTS[0], GenerationLimits(max_new_tokens=16))
    counting.cancel()

    assert turns > 10


def a_model(checkpoint: Path) -> LocalModel:
    return LocalModel.load(str(checkpoint), None, device="cpu")


async def test_a_full_queue_refuses_at_once(checkpoint: Path):
    engine = LocalEngine(a_model(checkpoint), max_waiting=2, max_batch=1)

    results = await asyncio.gather(
        *(engine.score(PROMPTS[0]) for _ in range(10)), return_exceptions=True
    )
    await engine.close()

    assert any(isinstance(result, EngineOverloaded) for result in results)
    assert not all(isinstance(result, EngineOverloaded) for result in results)


async def test_closing_answers_those_who_still_wait(checkpoint: Path):
    engine = LocalEngine(a_model(checkpoint), max_batch=1)
    waiting = [asyncio.ensure_future(engine.generate(PROMPTS[0], SHORT)) for _ in range(8)]
    await asyncio.sleep(0)  # lets the eight reach the queue

    await engine.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)

    assert isinstance(results[-1], EngineUnavailable)
    with pytest.raises(EngineUnavailable):
        await engine.score(PROMPTS[0])


class CountingModel:
    """The model itself, counting what it is asked to generate."""

    def __init__(self, model: LlavaNextForConditionalGeneration) -> None:
        self.model = model
        self.num_generations = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def eval(self) -> "CountingModel":
        return self

    def generate(self, **inputs: Any) -> torch.Tensor:
        self.num_generations += 1
        return self.model.generate(**inputs)


async def test_a_prompt_nobody_waits_for_any_more_is_not_computed(checkpoint: Path):
    model, processor = load_checkpoint(checkpoint)
    counting = CountingModel(model)
    engine = LocalEngine(LocalModel(counting, processor, EngineIdentity("m", "")), max_batch=1)
    first = asyncio.ensure_future(engine.generate(PROMPTS[0], SHORT))
    abandoned = asyncio.ensure_future(engine.generate(PROMPTS[1], SHORT))
    last = asyncio.ensure_future(engine.generate(PROMPTS[2], SHORT))
    await asyncio.sleep(0)  # lets the three reach the queue

    abandoned.cancel()
    await asyncio.gather(first, last)
    await engine.close()

    assert counting.num_generations == 2


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(ModelUnusable, match="--model"):
        LocalEngine.load(str(tmp_path))


def test_a_folder_that_is_no_adapter_is_named(checkpoint: Path, tmp_path: Path):
    with pytest.raises(ModelUnusable, match="--adapter"):
        LocalEngine.load(str(checkpoint), str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda whole: b"", id="empty"),
        pytest.param(lambda whole: b"version https://git-lfs", id="no-safetensors"),
        pytest.param(lambda whole: whole[:100], id="header-cut"),
        pytest.param(lambda whole: whole[:-100], id="tensors-cut"),
    ],
)
def test_a_damaged_file_of_weights_is_named(
    damage: Callable[[bytes], bytes], checkpoint: Path, tmp_path: Path
):
    weights = copytree(checkpoint, tmp_path / "damaged") / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))

    with pytest.raises(ModelUnusable, match=rf"{weights} are damaged .*; copy or download them"):
        LocalEngine.load(str(weights.parent), device="cpu")
