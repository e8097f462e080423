"""A text-only writer on a real vLLM server: the texts of this process, sampled or not."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.families.writers import write_writer
from services.batch import build_preferences, summarize_images
from services.core.artifacts import Artifact
from services.core.errors import ModelUnusable
from services.core.prompts import GenerationLimits, HistoryItem, Sampling, preference_messages
from services.engines.contract import AS_SERVED
from services.engines.local.engine import LocalEngine
from services.engines.open_engine import open_engine
from services.engines.vllm_client.engine import VllmEngine
from tests.artifact_builders import write_interactions, write_items
from tests.builders import DigestEngine, some_ids
from tests.vllm.conftest import ModelServer, StartModelServer

pytestmark = pytest.mark.vllm

SECONDS = 300.0
LIMITS = GenerationLimits(16)
PROMPTS = [
    preference_messages(f"Likes {word}.", [HistoryItem(f"The {word} fox", f"A {word} fox.")])
    for word in ("calm", "red", "small", "old", "brave", "quiet", "new", "loud", "green", "warm")
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The one whose template must be told not to think.
    return write_writer("qwen-3-thinking", tmp_path_factory.mktemp("writer") / "small-writer")


@pytest.fixture(scope="module")
def server(checkpoint: Path, start_model_server: StartModelServer) -> Iterator[ModelServer]:
    started = start_model_server(model=str(checkpoint), name="writer")
    yield started
    started.stop()


@pytest.fixture
async def writer(server: ModelServer) -> AsyncIterator[VllmEngine]:
    opened = await open_engine(
        "vllm", model=AS_SERVED, urls=[server.url], timeout_seconds=SECONDS, texts_only=True
    )
    yield opened
    await opened.close()


@pytest.fixture
async def local(checkpoint: Path) -> AsyncIterator[LocalEngine]:
    opened = LocalEngine.load(str(checkpoint), device="cpu", texts_only=True)
    yield opened
    await opened.close()


async def test_it_writes_what_this_process_writes(writer: VllmEngine, local: LocalEngine):
    served = await asyncio.gather(*(writer.generate(prompt, LIMITS) for prompt in PROMPTS))
    here = await asyncio.gather(*(local.generate(prompt, LIMITS) for prompt in PROMPTS))

    assert served == here
    assert writer.identity.model == local.identity.model
    assert writer.identity.name == "small-writer"


async def test_a_seed_gives_one_sampled_text_and_another_seed_another(writer: VllmEngine):
    sampled = replace(LIMITS, sampling=Sampling(temperature=1.0, top_p=0.9), seed=1)

    first, again = [await writer.generate(PROMPTS[0], sampled) for _ in range(2)]
    others = {await writer.generate(PROMPTS[0], replace(sampled, seed=k)) for k in range(2, 6)}

    assert first == again
    assert others - {first}


async def test_step_3_goes_through_it_and_its_manifest_names_it(
    writer: VllmEngine, local: LocalEngine, tmp_path: Path
):
    for engine, data in ((writer, tmp_path / "served"), (local, tmp_path / "here")):
        write_items(str(data), {item_id: f"title of {item_id}" for item_id in some_ids(8)})
        write_interactions(str(data), {"u1": some_ids(8), "u2": some_ids(5)})
        await summarize_images.run(str(data), DigestEngine())
        await build_preferences.run(str(data), engine, cut="none")
    served, here = (
        Artifact(str(tmp_path / name), "preferences-whole") for name in ("served", "here")
    )

    assert served.read().to_pylist() == here.read().to_pylist()
    assert served.manifest().model == local.identity.model
    assert served.manifest().model_name == "small-writer"


async def test_it_is_refused_where_images_are_asked_about(server: ModelServer):
    with pytest.raises(ModelUnusable):
        await open_engine("vllm", model=AS_SERVED, urls=[server.url], timeout_seconds=SECONDS)
