"""Covers of `--fit grid` in one queue: the shapes of others change no prompt's margin."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.families.checkpoints import write_checkpoint
from services.core.prompts import Messages
from services.core.scoring import answer_margin
from services.engines.local.engine import LocalEngine
from services.engines.models.image_shapes import find_form
from tests.families.mixed_covers import mixed_prompts

# They need what vLLM brings, as in test_image_shapes.py.
pytestmark = pytest.mark.vllm


@pytest.mark.parametrize("name", ["mistral", "qwen-2.5", "qwen-3"])
async def test_a_margin_does_not_depend_on_the_shapes_in_its_batch(name: str, tmp_path: Path):
    base = str(write_checkpoint(name, tmp_path))
    prompts = mixed_prompts(find_form(base, None))
    engine = LocalEngine.load(base, device="cpu")

    alone = [await margin(engine, each) for each in prompts]
    together = await asyncio.gather(*(margin(engine, each) for each in prompts * 3))
    await engine.close()

    assert len(set(alone)) == len(prompts)
    assert together == pytest.approx(alone * 3, abs=1e-5)


async def margin(engine: LocalEngine, prompt: Messages) -> float:
    answer = await engine.score(prompt)
    return answer_margin(yes=answer.yes, no=answer.no)
