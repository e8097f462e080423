"""What a file holds, oldest first, and what is left out of it."""

from pathlib import Path

import pytest

from clients.replay.reading import Row, read_recording
from services.batch.readers.microlens import MicroLens
from services.core.errors import MalformedFile


def a_file(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_rows_come_oldest_first_and_equally_old_ones_as_they_stand(tmp_path: Path):
    text = "user_id,item_id,timestamp_ms\nu1,b,2000\nu1,a,1000\nu2,c,2000\n"

    recording = read_recording(a_file(tmp_path, "interactions.csv", text))

    assert recording.rows == [Row("u1", "a", 1000), Row("u1", "b", 2000), Row("u2", "c", 2000)]
    assert recording.num_skipped == 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("M_pairs.csv", "user,item,timestamp\n7,b,2000\n7,a,1000\n8,a,3000\n"),
        ("M_pairs.tsv", "7\ta b\n8\tb\n"),
    ],
)
def test_microlens_reads_as_prepare_catalogue_reads_it(tmp_path: Path, name: str, text: str):
    path = a_file(tmp_path, name, text)
    a_file(tmp_path, "M_titles.csv", "item,title\na,Fox\nb,Boat\n")

    prepared = MicroLens(tmp_path).interactions([])
    facts = zip(prepared.users, prepared.items, prepared.timestamps_ms, strict=True)
    expected = [Row(prepared.user_ids[u], prepared.item_ids[i], int(t)) for u, i, t in facts]

    assert sorted(read_recording(path).rows) == sorted(expected)


def test_rows_that_the_api_could_not_take_are_counted_and_left_out(tmp_path: Path):
    rows = ["u1,a,1", "u1,a", "u1,a,soon", "u1,a,-1", ",a,1", "u1,,1", f"{'u' * 300},a,1", ""]
    text = "\n".join(["user_id,item_id,timestamp_ms", *rows])

    recording = read_recording(a_file(tmp_path, "x.csv", text.encode() + b"\nu\xff,a,1\n"))

    assert recording.rows == [Row("u1", "a", 1)]
    assert recording.num_skipped == 7


def test_a_prefix_gives_users_of_their_own(tmp_path: Path):
    path = a_file(tmp_path, "x.tsv", "1\ta\n\tb\n")

    recording = read_recording(path, prefix="load-")

    assert [row.user_id for row in recording.rows] == ["load-1"]
    assert recording.num_skipped == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [("who,what\n1,2\n", "user_id"), ("", "none"), ("user_id,item_id,timestamp_ms\n", "no inter")],
)
def test_a_file_without_interactions_is_refused_with_a_remedy(
    tmp_path: Path, text: str, message: str
):
    with pytest.raises(MalformedFile, match=message):
        read_recording(a_file(tmp_path, "x.csv", text))
    with pytest.raises(MalformedFile, match="cannot be read"):
        read_recording(tmp_path / "absent.csv")
