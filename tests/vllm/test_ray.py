"""vLLM in a Ray worker writes the summaries that the local engine writes here."""

from functools import partial
from pathlib import Path

import pytest

from services.batch import summarize_images
from services.core.artifacts import Artifact
from services.engines.checkpoints import identify
from services.engines.local.engine import LocalEngine
from services.engines.open_engine import open_engine
from tests.artifact_builders import write_items
from tests.model_training.builders import COLORS, a_cover
from tests.ray_engines import Start
from tests.ray_engines import start_workers as start_workers
from tests.vllm.conftest import BASE

pytestmark = pytest.mark.vllm

TITLES = {color: f"a calm {color} fox" for color in COLORS} | {"plain": "no picture at all"}


async def test_summaries_of_vllm_on_ray_are_those_of_the_local_engine_here(
    tmp_path: Path, start_workers: Start
):
    here, on_ray = str(tmp_path / "here"), str(tmp_path / "ray")
    for data in (here, on_ray):
        write_items(data, TITLES, {color: a_cover(color) for color in COLORS})
    opener = partial(open_engine, "vllm-in-process", model=BASE)
    workers = await start_workers(opener, identity=identify(BASE), num_workers=1)

    counts = await summarize_images.run(on_ray, workers, shard_size=4)

    engine = LocalEngine.load(BASE, device="cpu")
    assert counts == await summarize_images.run(here, engine, shard_size=4)
    summaries = [Artifact(data, "summaries") for data in (here, on_ray)]
    assert summaries[0].read() == summaries[1].read()
    assert summaries[0].manifest() == summaries[1].manifest()
    await engine.close()
