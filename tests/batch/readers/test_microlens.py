from pathlib import Path

import pytest

from services.batch.readers.microlens import HISTORY_STARTS_MS, STEP_MS, MicroLens
from services.core.errors import MalformedFile
from tests.batch.readers.builders import a_microlens_folder, write_csv


def test_a_line_of_pairs_is_a_history_in_its_order(tmp_path: Path):
    columns = MicroLens(a_microlens_folder(tmp_path)).interactions([])

    assert [columns.item_ids[k] for k in columns.items] == ["a", "b", "c", "c", "a"]
    steps = (columns.timestamps_ms - HISTORY_STARTS_MS) // STEP_MS
    assert steps.tolist() == [0, 1, 2, 0, 1]
    assert columns.lines.tolist() == [1, 1, 1, 2, 2]


def test_pairs_with_times_are_preferred(tmp_path: Path):
    folder = a_microlens_folder(tmp_path)
    header = ("user", "item", "timestamp")
    write_csv(folder / "Tiny_pairs.csv", header, [("u1", "b", 1_600_000_000_000)])

    columns = MicroLens(folder).interactions([])

    assert columns.item_ids == ["b"]
    assert columns.timestamps_ms.tolist() == [1_600_000_000_000]


def test_lines_that_are_no_history_are_quarantined_by_line(tmp_path: Path):
    folder = a_microlens_folder(tmp_path)
    (folder / "Tiny_pairs.tsv").write_bytes(b"u1\ta\nu2 a b\nu3\t\xff\n\nu4\tb\n")
    faults = []

    columns = MicroLens(folder).interactions(faults)

    assert columns.user_ids == ["u1", "u4"]
    assert [fault.row for fault in faults] == ["Tiny_pairs.tsv:2", "Tiny_pairs.tsv:3"]


def test_titles_keep_commas_quotes_and_line_breaks(tmp_path: Path):
    titles = [("a", 'He said "no", twice\nand left')]

    [item] = MicroLens(a_microlens_folder(tmp_path, titles=titles)).items([])

    assert item.title == 'He said "no", twice\nand left'


def test_without_a_folder_of_covers_items_are_text_only(tmp_path: Path):
    items = MicroLens(a_microlens_folder(tmp_path)).items([])

    assert [item.cover_file for item in items] == [None, None, None]


def test_covers_are_found_by_item_id_and_a_missing_one_is_named(tmp_path: Path):
    folder = a_microlens_folder(tmp_path)
    (folder / "Tiny_covers").mkdir()
    for name in ("a.png", "b.JPG"):
        (folder / "Tiny_covers" / name).touch()

    items = MicroLens(folder).items([])

    assert [item.cover_file.name for item in items] == ["a.png", "b.JPG", "c.jpg"]


@pytest.mark.parametrize("missing", ["Tiny_pairs.tsv", "Tiny_titles.csv"])
def test_a_missing_file_is_reported_with_what_was_expected(tmp_path: Path, missing: str):
    folder = a_microlens_folder(tmp_path)
    (folder / missing).unlink()

    with pytest.raises(MalformedFile, match=missing.removeprefix("Tiny")):
        MicroLens(folder)


def test_two_data_sets_in_one_folder_are_not_guessed_between(tmp_path: Path):
    folder = a_microlens_folder(tmp_path)
    (folder / "Other_pairs.tsv").touch()

    with pytest.raises(MalformedFile, match="several pairs file"):
        MicroLens(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(MalformedFile, match="nowhere is not a folder"):
        MicroLens(tmp_path / "nowhere")


def test_a_missing_column_is_named_beside_those_found(tmp_path: Path):
    folder = a_microlens_folder(tmp_path)
    write_csv(folder / "Tiny_titles.csv", ("item", "name"), [("a", "Apple")])

    with pytest.raises(MalformedFile, match="no column 'title'; it has 'item', 'name'"):
        list(MicroLens(folder).items([]))
