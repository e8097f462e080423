"""Preferences are believed only if they cannot have seen the target item."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_training.data.inputs import open_inputs
from services.core.errors import ArtifactMismatch, EmptyDataset, TargetLeak
from tests.artifact_builders import write_interactions
from tests.model_training.builders import some_histories, write_preferences


def read(data: str, name: str = "preferences", **options: str):
    return open_inputs(data).read_preferences(name, **options)


def test_a_user_with_two_rows_could_be_in_two_parts_and_is_refused(data: str):
    part = next(Path(data).glob("interactions/*/part-00000.parquet"))
    table = pq.read_table(part)
    pq.write_table(pa.concat_tables([table, table.slice(3, 1)]), part)

    with pytest.raises(ArtifactMismatch, match="'u3' twice"):
        open_inputs(data)


def test_times_are_read_by_user(data: str):
    times = open_inputs(data).timestamps_ms

    assert times is not None
    assert times["u3"] == [1000, 2000, 3000, 4000, 5000]


def test_preferences_of_the_popular_cut_are_read_for_it_alone(data: str):
    # With five items a user the last of the six most popular ones is simply the last.
    covered = {user: history[:-1] for user, history in some_histories().items()}
    write_preferences(data, covered, name="preferences-popular", cut="popular")

    assert len(read(data, "preferences-popular", cut="popular").by_user) == 30
    with pytest.raises(TargetLeak, match="cut 'popular'"):
        read(data, "preferences-popular")


def test_preferences_of_the_last_cut_are_refused_where_the_popular_one_is_asked_for(data: str):
    with pytest.raises(TargetLeak, match="--cut popular"):
        read(data, cut="popular")


def test_preferences_written_before_the_target_are_read(data: str):
    assert read(data).by_user["u7"] == "Likes what u7 likes."


def test_an_artifact_with_whole_histories_is_refused(data: str):
    write_preferences(data, some_histories(), cut="none")

    with pytest.raises(TargetLeak, match="cut 'none'"):
        read(data)


def test_a_row_that_covers_the_target_is_refused_whatever_the_manifest_says(data: str):
    histories = some_histories()
    covered = {user: history[:-1] for user, history in histories.items()}
    write_preferences(data, covered | {"u3": histories["u3"]})

    with pytest.raises(TargetLeak, match="'u3'"):
        read(data)


@pytest.mark.parametrize("covered", [["i0"], [], ["i0", "i9", "i4", "i1"]])
def test_a_row_that_covers_other_items_is_refused(data: str, covered: list[str]):
    histories = {user: history[:-1] for user, history in some_histories().items()}
    write_preferences(data, histories | {"u0": covered})

    with pytest.raises(ArtifactMismatch, match="'u0'"):
        read(data)


def test_a_direct_preference_may_have_seen_the_end_of_the_history_only(data: str):
    ends = {user: history[-3:-1] for user, history in some_histories().items()}
    write_preferences(data, ends, name="preferences-direct", variant="direct")

    assert len(read(data, "preferences-direct").by_user) == 30


def test_a_direct_preference_that_ends_with_the_target_is_refused(data: str):
    ends = {user: history[-2:] for user, history in some_histories().items()}
    write_preferences(data, ends, name="preferences-direct", variant="direct")

    with pytest.raises(TargetLeak):
        read(data, "preferences-direct")


def test_preferences_of_other_interactions_are_refused(data: str):
    write_interactions(data, some_histories(29))

    with pytest.raises(ArtifactMismatch, match="run `msr build-preferences` again"):
        read(data)


@pytest.mark.parametrize("field", ["prompt", "block_size"])
def test_preferences_of_another_definition_are_refused(data: str, field: str):
    covered = {user: history[:-1] for user, history in some_histories().items()}
    write_preferences(data, covered, **{field: "older"})

    with pytest.raises(ArtifactMismatch, match=f"{field} 'older'"):
        read(data)


def test_preferences_of_nobody_are_refused(data: str):
    write_preferences(data, {})

    with pytest.raises(EmptyDataset):
        read(data)


def test_items_that_the_catalogue_lacks_are_named(data: str):
    with pytest.raises(ArtifactMismatch, match="'i99'"):
        open_inputs(data).read_items({"i1", "i99"})


def test_items_are_read_with_their_images(data: str):
    items = open_inputs(data).read_items({"i5", "i6"})

    assert items["i5"].image is None
    assert items["i6"].image is not None
