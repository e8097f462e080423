"""Ray's workers: shards spread over nodes, a dead worker costs its shard, errors stay ours."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from services.core.errors import (
    ArtifactMissing,
    EngineUnavailable,
    InputError,
    ModelUnusable,
)
from services.core.prompts import SUMMARY_LIMITS, Message
from services.engines.contract import Engine, EngineIdentity
from services.sharding.ray_workers import MAX_SHARD_RETRIES, Slots, divide_nodes
from tests.artifact_builders import EchoEngine
from tests.ray_engines import NotingEngine, Start, noted
from tests.ray_engines import start_workers as start_workers


class CopyJob:
    """Writes what the engine answers to each shard's number into a file of its own."""

    retry = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has_shard(self, shard: int) -> bool:
        return (self.folder / f"{shard}.shard").exists()

    async def run_shard(self, engine: Engine, shard: int, advance: Callable[[int], None]) -> None:
        question = Message("user", f'what is "{shard}"')
        answer = await engine.generate((question,), SUMMARY_LIMITS)
        (self.folder / f"{shard}.shard").write_text(answer)
        advance(1)

    def written(self) -> dict[str, str]:
        return {path.stem: path.read_text() for path in self.folder.glob("*.shard")}


class OtherDiskJob(CopyJob):
    """On a worker, a folder that the driver does not see."""

    def __reduce__(self) -> tuple[type[CopyJob], tuple[Path]]:
        other = self.folder / "other"
        other.mkdir(exist_ok=True)
        return CopyJob, (other,)


class UnreadableJob(CopyJob):
    """Finds nothing of what it needs on a worker."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return find_nothing, ()


def find_nothing() -> None:
    raise ArtifactMissing("/data/items holds no finished items")


async def open_noting(notes: Path, num_nodes: int, fatal: str) -> Engine:
    return NotingEngine(EchoEngine(), notes, num_nodes=num_nodes, fatal=fatal)


async def open_fragile(fail_after: int) -> Engine:
    return EchoEngine(fail_after=fail_after)


async def open_deadly(folder: Path) -> Engine:
    (folder / "killed.txt").unlink(missing_ok=True)
    return NotingEngine(EchoEngine(), folder, fatal="what")


async def open_nothing() -> Engine:
    raise ModelUnusable("/no/model holds no weights; name a checkpoint folder")


@pytest.mark.slow
async def test_both_nodes_do_shards(start_workers: Start, tmp_path: Path):
    job, progress = CopyJob(tmp_path), []
    workers = await start_workers(partial(open_noting, tmp_path, 2, ""))

    num_shortened = await workers.run_shards(job, range(6), progress.append)

    assert job.written() == {str(shard): str(shard) for shard in range(6)}
    assert len(noted(tmp_path)) == 2
    assert sum(progress) == 6
    assert num_shortened == 0


@pytest.mark.slow
async def test_a_killed_worker_costs_its_shard_alone(start_workers: Start, tmp_path: Path):
    job = CopyJob(tmp_path)
    workers = await start_workers(partial(open_noting, tmp_path, 2, '"3"'))

    await workers.run_shards(job, range(6), lambda done: None)

    assert (tmp_path / "killed.txt").exists()
    assert set(job.written()) == set("012345")
    asked = [text for texts in noted(tmp_path).values() for text in texts]
    assert sorted(asked) == sorted(f'what is "{shard}"' for shard in [0, 1, 2, 3, 3, 4, 5])


@pytest.mark.slow
async def test_a_shard_that_kills_every_worker_ends_the_step(start_workers: Start, tmp_path: Path):
    workers = await start_workers(partial(open_deadly, tmp_path))

    with pytest.raises(EngineUnavailable, match="over one shard"):
        await workers.run_shards(CopyJob(tmp_path), [0], lambda done: None)

    assert sum(len(texts) for texts in noted(tmp_path).values()) == 1 + MAX_SHARD_RETRIES


@pytest.mark.slow
async def test_a_worker_without_an_engine_ends_the_step(start_workers: Start, tmp_path: Path):
    workers = await start_workers(open_nothing)

    with pytest.raises(ModelUnusable, match="name a checkpoint folder"):
        await workers.run_shards(CopyJob(tmp_path), [0], lambda done: None)


@pytest.mark.slow
async def test_a_worker_with_another_model_ends_the_step(start_workers: Start, tmp_path: Path):
    workers = await start_workers(partial(open_fragile, 9), identity=EngineIdentity("expected", ""))

    with pytest.raises(ModelUnusable, match="every node the same model"):
        await workers.run_shards(CopyJob(tmp_path), [0], lambda done: None)


@pytest.mark.slow
async def test_an_engine_that_goes_away_ends_the_step_and_what_is_done_stays(
    start_workers: Start, tmp_path: Path
):
    job = CopyJob(tmp_path)
    workers = await start_workers(partial(open_fragile, 2), num_workers=1)

    with pytest.raises(EngineUnavailable, match="the engine is gone"):
        await workers.run_shards(job, range(4), lambda done: None)

    assert len(job.written()) == 2


@pytest.mark.slow
async def test_a_worker_that_writes_elsewhere_is_found_out(start_workers: Start, tmp_path: Path):
    workers = await start_workers(partial(open_fragile, 9))

    with pytest.raises(ArtifactMissing, match="data folder that all nodes share"):
        await workers.run_shards(OtherDiskJob(tmp_path), [0], lambda done: None)


@pytest.mark.slow
async def test_a_worker_that_lacks_the_data_says_so(start_workers: Start, tmp_path: Path):
    workers = await start_workers(partial(open_fragile, 9))

    with pytest.raises(ArtifactMissing, match=r"no finished items; .* that all nodes share"):
        await workers.run_shards(UnreadableJob(tmp_path), [0], lambda done: None)


async def test_a_cluster_that_is_not_there_is_named(start_workers: Start, unused_tcp_port: int):
    with pytest.raises(EngineUnavailable, match=f"no Ray cluster answers at .*:{unused_tcp_port}"):
        await start_workers(open_nothing, address=f"127.0.0.1:{unused_tcp_port}")


async def test_more_workers_than_the_cluster_has_cores_are_refused(start_workers: Start):
    with pytest.raises(InputError, match="2 CPU cores on 2 nodes, too few for 3 workers"):
        await start_workers(open_nothing, num_workers=3)


@pytest.mark.parametrize(
    ("nodes", "num_workers", "uses_gpu", "slots"),
    [
        ([{"CPU": 16, "GPU": 4}, {"CPU": 16, "GPU": 4}], None, True, Slots(8, 1, 1)),
        ([{"CPU": 16, "GPU": 4}, {"CPU": 16, "GPU": 4}], None, False, Slots(2, 16, 0)),
        ([{"CPU": 8}, {"CPU": 4}], None, True, Slots(2, 4, 0)),
        ([{"CPU": 8}, {"CPU": 4}], 4, True, Slots(4, 2, 0)),
        ([{"CPU": 2}, {}], None, True, Slots(1, 2, 0)),
    ],
)
def test_workers_get_a_gpu_each_or_their_share_of_a_nodes_cores(
    nodes, num_workers, uses_gpu, slots
):
    assert divide_nodes(nodes, num_workers, uses_gpu=uses_gpu) == slots
