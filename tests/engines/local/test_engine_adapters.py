"""Several adapters on the local engine's one base model: none meets another's prompts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from shutil import copytree

import pytest

from services.core.errors import (
    AdapterRefused,
    ArtifactMismatch,
    EngineUnavailable,
    ModelUnusable,
)
from services.core.prompts import GenerationLimits
from services.core.scoring import AnswerLogprobs
from services.deployment.assemble import DEMO_WEIGHTS
from services.engines.checkpoints import identify
from services.engines.contract import AdapterHost
from services.engines.local.engine import LocalEngine
from tests.engines.conftest import a_prompt

BASE, SERVED, SFT = (str(DEMO_WEIGHTS / name) for name in ("base", "adapter", "adapter-sft"))
PROMPTS = [a_prompt("A calm fox", color, taste) for color in ("red", "blue") for taste in "abc"]


@pytest.fixture
async def engine() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine.load(BASE, SERVED, device="cpu")
    yield engine
    await engine.close()


async def alone(adapter: str | None) -> list[AnswerLogprobs]:
    """What an engine that knows no other adapter says."""
    engine = LocalEngine.load(BASE, adapter, device="cpu")
    answers = await asyncio.gather(*(engine.score(prompt) for prompt in PROMPTS))
    await engine.close()
    return list(answers)


def assert_alike(found: list[AnswerLogprobs], expected: list[AnswerLogprobs]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.yes, one.no) == pytest.approx((other.yes, other.no), abs=1e-5)


async def test_adapters_score_at_once_as_each_does_alone(engine: LocalEngine):
    loaded = await engine.load_adapter(SFT)
    answers = await asyncio.gather(
        *(who.score(prompt) for prompt in PROMPTS for who in (engine, loaded))
    )

    by_served, by_sft = await alone(SERVED), await alone(SFT)
    assert_alike(answers[::2], by_served)
    assert_alike(answers[1::2], by_sft)
    assert all(abs(a.yes - b.yes) > 1e-4 for a, b in zip(by_served, by_sft, strict=True))
    assert loaded.identity == identify(BASE, SFT)
    assert engine.identity == identify(BASE, SERVED)


async def test_loading_and_unloading_under_load_changes_no_score(engine: LocalEngine):
    scoring = asyncio.gather(*(engine.score(prompt) for _ in range(4) for prompt in PROMPTS))
    for _ in range(3):
        loaded = await engine.load_adapter(SFT)
        await engine.unload_adapter(loaded)

    assert_alike((await scoring), 4 * await alone(SERVED))
    with pytest.raises(EngineUnavailable, match="unloaded"):
        await loaded.score(PROMPTS[0])


async def test_an_engine_without_an_adapter_stays_the_base_model(tmp_path: Path):
    engine = LocalEngine.load(BASE, device="cpu")
    limits = GenerationLimits(max_new_tokens=8)
    text = await engine.generate(PROMPTS[0], limits)
    loaded = await engine.load_adapter(SFT)
    with_adapter = [await engine.score(prompt) for prompt in PROMPTS]
    by_sft = [await loaded.score(prompt) for prompt in PROMPTS]
    same_text = await engine.generate(PROMPTS[0], limits)
    await engine.unload_adapter(loaded)
    after = [await engine.score(prompt) for prompt in PROMPTS]
    await engine.close()

    base = await alone(None)
    assert_alike(with_adapter, base)
    assert_alike(after, base)
    assert_alike(by_sft, await alone(SFT))
    assert same_text == text


async def test_an_adapter_of_another_base_is_refused_and_nothing_changes(
    engine: LocalEngine, tmp_path: Path
):
    folder = copytree(SFT, tmp_path / "other")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace(engine.identity.model, "another-base"))

    with pytest.raises(ArtifactMismatch, match="another-base"):
        await engine.load_adapter(str(folder))
    assert_alike([await engine.score(prompt) for prompt in PROMPTS], await alone(SERVED))


async def test_a_damaged_adapter_is_refused(engine: LocalEngine, tmp_path: Path):
    folder = copytree(SFT, tmp_path / "damaged")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"\x00" * 8)

    with pytest.raises(ModelUnusable, match="files of one training"):
        await engine.load_adapter(str(folder))


@pytest.mark.parametrize("own", [SERVED, None])
async def test_an_adapter_that_fails_in_the_middle_of_loading_leaves_the_model_as_it_was(
    own: str | None, tmp_path: Path
):
    engine = LocalEngine.load(BASE, own, device="cpu")
    folder = copytree(SFT, tmp_path / "torn")
    (folder / "adapter_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelUnusable, match="cannot load"):
        await engine._run_control_task(lambda: engine._model.attach_adapter("torn", str(folder)))
    answers = [await engine.score(prompt) for prompt in PROMPTS]
    again = await engine.load_adapter(SFT)
    by_sft = [await again.score(prompt) for prompt in PROMPTS]
    await engine.close()

    assert_alike(answers, await alone(own))
    assert_alike(by_sft, await alone(SFT))


async def test_a_merged_checkpoint_takes_no_adapter(engine: LocalEngine):
    merged = LocalEngine(engine._model, merged=True)

    with pytest.raises(AdapterRefused, match="merged checkpoint"):
        await merged.load_adapter(SFT)
    assert isinstance(merged, AdapterHost)
    await merged.close()


async def test_a_closed_engine_loads_nothing(engine: LocalEngine):
    await engine.close()

    with pytest.raises(EngineUnavailable, match="closed"):
        await engine.load_adapter(SFT)
