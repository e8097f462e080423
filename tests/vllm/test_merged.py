"""A merged checkpoint on a vLLM server of its own: the adapter's answers without LoRA's cost."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from services.core.errors import ModelUnusable
from services.core.prompts import GenerationLimits, Messages
from services.core.scoring import answer_margin
from services.engines.checkpoints import identify
from services.engines.contract import Engine, EngineOptions
from services.engines.local.engine import LocalEngine
from services.engines.vllm_client.engine import VllmEngine
from tests.processes import wait_until_gone
from tests.vllm.conftest import ModelServer, StartModelServer

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def merged_server(
    start_model_server: StartModelServer, demo_server: ModelServer, merged: str
) -> ModelServer:
    """Its base's server comes up beside it."""
    return start_model_server(model=merged, name="demo-merged")


@pytest.fixture
async def engine(merged_server: ModelServer) -> AsyncIterator[VllmEngine]:
    engine = await VllmEngine.connect(EngineOptions("demo-merged", urls=[merged_server.url]))
    yield engine
    await engine.close()


async def margins(engine: Engine, prompts: Sequence[Messages]) -> list[float]:
    answers = await asyncio.gather(*map(engine.score, prompts))
    return [answer_margin(yes=answer.yes, no=answer.no) for answer in answers]


async def test_vllm_and_the_local_engine_agree_on_a_merged_checkpoint(
    engine: VllmEngine, merged: str, scoring_prompts: list[Messages]
):
    local = LocalEngine.load(merged, device="cpu")
    expected = await margins(local, scoring_prompts)
    await local.close()

    assert len(expected) == 200
    assert await margins(engine, scoring_prompts) == pytest.approx(expected, abs=1e-4)


async def test_the_merged_checkpoint_answers_as_the_adapter_does(
    engine: VllmEngine, model_server: str, scoring_prompts: list[Messages]
):
    by_adapter = await VllmEngine.connect(
        EngineOptions("demo", "demo-adapter", urls=[model_server])
    )
    expected = await margins(by_adapter, scoring_prompts)
    await by_adapter.close()

    assert await margins(engine, scoring_prompts) == pytest.approx(expected, abs=1e-3)


async def test_its_identity_is_the_one_that_its_folder_has(engine: VllmEngine, merged: str):
    assert engine.identity == identify(merged)


async def test_it_writes_no_texts(engine: VllmEngine, scoring_prompts: list[Messages]):
    with pytest.raises(ModelUnusable, match="base model"):
        await engine.generate(scoring_prompts[0], GenerationLimits(max_new_tokens=3))


async def test_beside_its_base_it_scores_and_the_base_writes(
    merged_server: ModelServer, model_server: str, scoring_prompts: list[Messages], merged: str
):
    both = await VllmEngine.connect(
        EngineOptions(
            "demo",
            urls=[model_server],
            recommender="demo-merged",
            recommender_urls=[merged_server.url],
        )
    )
    text = await both.generate(scoring_prompts[0], GenerationLimits(max_new_tokens=3))
    await both.score(scoring_prompts[0])
    await both.close()

    assert text
    assert both.identity == identify(merged)


def test_after_a_signal_the_server_ends_well_and_leaves_no_process(merged_server: ModelServer):
    assert merged_server.url
    below = merged_server.below()

    assert merged_server.stop() == 0
    wait_until_gone(below)
    assert len(below) >= 4  # vLLM's server, its engine, its worker, the guard
