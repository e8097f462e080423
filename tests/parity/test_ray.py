"""With Ray or without, and with workers killed on the way, the steps leave the same bytes."""

from functools import partial
from pathlib import Path

import pytest

from model_training.evaluation import evaluate
from services.batch import build_preferences, summarize_images
from services.deployment.assemble import DEMO_WEIGHTS
from services.engines.checkpoints import identify
from services.engines.contract import Engine
from services.engines.local.engine import LocalEngine
from tests.artifact_builders import EchoEngine, write_interactions, write_items
from tests.model_training.builders import a_cover, write_world
from tests.ray_engines import NotingEngine, Start, noted
from tests.ray_engines import start_workers as start_workers

pytestmark = pytest.mark.slow

BASE = str(DEMO_WEIGHTS / "base")
COLORS = ("red", "green", "blue", "yellow", "black")
TITLES = {f"i{n}": f"t{n}" for n in range(10)}
HISTORIES = {f"u{n}": [f"i{(n + step) % 10}" for step in range(8)] for n in range(4)}


async def open_demo_model(notes: Path) -> Engine:
    return NotingEngine(LocalEngine.load(BASE, device="cpu"), notes, num_nodes=2)


async def open_echo(notes: Path, fatal: str = "") -> Engine:
    return NotingEngine(EchoEngine(), notes, num_nodes=2, fatal=fatal)


def files(data: str, artifact: str) -> dict[str, bytes]:
    folder = Path(data) / artifact
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    """Where a step runs without Ray, and where with it."""
    return str(tmp_path / "here"), str(tmp_path / "ray")


async def test_the_demo_model_on_two_nodes_writes_the_summaries_that_it_writes_here(
    folders: tuple[str, str], notes: Path, start_workers: Start
):
    here, on_ray = folders
    for data in folders:
        write_items(data, TITLES, {f"i{n}": a_cover(color) for n, color in enumerate(COLORS)})
    engine = LocalEngine.load(BASE, device="cpu")
    opener = partial(open_demo_model, notes)
    workers = await start_workers(opener, identity=identify(BASE))

    counts = await summarize_images.run(here, engine, shard_size=3)
    assert await summarize_images.run(on_ray, workers, shard_size=3) == counts

    assert files(on_ray, "summaries") == files(here, "summaries")
    assert len(noted(notes)) == 2
    await engine.close()


async def test_preferences_go_on_behind_the_last_whole_wave_of_a_killed_worker(
    folders: tuple[str, str], notes: Path, start_workers: Start
):
    here, on_ray = folders
    for data in folders:
        write_items(data, TITLES)
        write_interactions(data, HISTORIES)
        await summarize_images.run(data, EchoEngine())
    # A prompt of user u1 in the second wave: the first one is whole then.
    opener = partial(open_echo, notes, fatal='so far: "t1+')
    workers = await start_workers(opener)

    await build_preferences.run(here, EchoEngine(), shard_size=2)
    await build_preferences.run(on_ray, workers, shard_size=2)

    assert (notes / "killed.txt").exists()
    assert files(on_ray, "preferences") == files(here, "preferences")
    asked = [text for texts in noted(notes).values() for text in texts]
    assert len(asked) - len(set(asked)) <= 2  # users of the shard, whose second wave was on its way


async def test_scores_of_test_users_are_the_same_bytes(
    folders: tuple[str, str], notes: Path, start_workers: Start
):
    here, on_ray = folders
    for data in folders:
        write_world(data)
    opener = partial(open_echo, notes)
    workers = await start_workers(opener)

    expected = await evaluate.run(here, EchoEngine(), models=["mllm"], users_per_shard=1)
    result = await evaluate.run(on_ray, workers, models=["mllm"], users_per_shard=1)

    assert result.models["mllm"].metrics == expected.models["mllm"].metrics
    artifact = "scores-chrono-uniform-base"
    assert files(on_ray, artifact) == files(here, artifact)
    assert len(noted(notes)) == 2
