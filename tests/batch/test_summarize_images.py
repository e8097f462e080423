"""Step 2: every item is summarized once, and faults stay with their item."""

from pathlib import Path

import pytest

from services.batch import summarize_images
from services.core.artifacts import Artifact
from services.core.errors import EngineUnavailable, ModelUnusable
from tests.artifact_builders import EchoEngine, write_items

TITLES = {"i1": "fox", "i2": "boat", "i3": "tree"}


@pytest.fixture
def data(tmp_path: Path) -> str:
    write_items(str(tmp_path), TITLES)
    return str(tmp_path)


def summaries(data: str) -> dict[str, str]:
    rows = Artifact(data, "summaries").read().to_pydict()
    return dict(zip(rows["item_id"], rows["summary"], strict=True))


async def test_every_item_gets_its_own_summary(data: str):
    counts = await summarize_images.run(data, EchoEngine())

    assert summaries(data) == {"i1": "fox", "i2": "boat", "i3": "tree"}
    texts = counts.pop("texts")
    assert counts == {"items": 3, "summaries": 3, "quarantined": 0, "shortened": 0}
    assert (texts["num_texts"], texts["num_distinct"]) == (3, 3)


async def test_a_refused_item_is_quarantined_with_its_reason_and_can_be_retried_alone(data: str):
    await summarize_images.run(data, EchoEngine(refuse="boat"))
    assert Artifact(data, "summaries").manifest().quarantined == [
        {"row": "i2", "reason": "will not take boat"}
    ]
    healthy = EchoEngine()

    counts = await summarize_images.run(data, healthy, retry_quarantined=True)

    assert counts["quarantined"] == 0
    assert len(healthy.prompts) == 1
    assert summaries(data)["i2"] == "boat"


async def test_a_step_without_a_single_success_is_not_finished(data: str):
    write_items(data, {"i1": "boat"})

    with pytest.raises(ModelUnusable, match="none of 1 rows was done; i1: will not take boat"):
        await summarize_images.run(data, EchoEngine(refuse="boat"))
    assert not Artifact(data, "summaries").exists()

    await summarize_images.run(data, EchoEngine(), retry_quarantined=True)
    assert summaries(data) == {"i1": "boat"}


async def test_a_model_that_refuses_everything_stops_early(data: str):
    write_items(data, {f"i{number}": "boat" for number in range(60)})
    engine = EchoEngine(refuse="boat")

    with pytest.raises(ModelUnusable, match="refused the first 20 prompts"):
        await summarize_images.run(data, engine, shard_size=10)
    assert len(engine.prompts) <= 40


async def test_when_the_engine_goes_away_the_next_run_redoes_no_whole_shard(data: str):
    with pytest.raises(EngineUnavailable):
        await summarize_images.run(data, EchoEngine(fail_after=2), shard_size=1)
    healthy = EchoEngine()

    await summarize_images.run(data, healthy, shard_size=1)

    assert len(healthy.prompts) == 1
    assert TITLES["i3"] in healthy.prompts[0]
    assert summaries(data) == {"i1": "fox", "i2": "boat", "i3": "tree"}


async def test_a_finished_step_does_nothing_when_run_again(data: str):
    await summarize_images.run(data, EchoEngine())
    idle = EchoEngine()

    assert (await summarize_images.run(data, idle))["summaries"] == 3
    assert idle.prompts == []


async def test_only_changed_items_are_summarized_again(data: str):
    await summarize_images.run(data, EchoEngine())
    write_items(data, TITLES | {"i2": "ship", "i4": "lamp"})
    engine = EchoEngine()

    await summarize_images.run(data, engine)

    assert len(engine.prompts) == 2
    assert summaries(data) == {"i1": "fox", "i2": "ship", "i3": "tree", "i4": "lamp"}


async def test_an_estimate_counts_what_is_left_and_writes_nothing(data: str):
    estimate = await summarize_images.estimate(data, EchoEngine())

    assert estimate["prompts"] == 3
    assert not Artifact(data, "summaries").exists()


async def test_summaries_are_the_same_however_the_catalogue_is_cut_into_shards(data: str):
    await summarize_images.run(data, EchoEngine(), shard_size=2)

    assert summaries(data) == {"i1": "fox", "i2": "boat", "i3": "tree"}
    assert Artifact(data, "summaries").manifest().num_shards == 2
