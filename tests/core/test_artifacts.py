"""Artifacts: a part that exists is whole, and a rerun ends with the same bytes."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from services.core.artifacts import Artifact, QuarantinedRow, Recipe, absolute_root
from services.core.errors import ArtifactMismatch, ArtifactMissing, FolderNotWritable

RECIPE = Recipe("summarize-images", {"prompt": "p1"}, "m1", {"items": "f1"})


def rows(*values: str) -> pa.Table:
    return pa.table({"value": list(values)})


def files_under(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def make(folder: Path, recipe: Recipe = RECIPE) -> Artifact:
    artifact = Artifact(str(folder), "summaries")
    writer = artifact.write(recipe)
    writer.write_shard(0, rows("a", "b"), [QuarantinedRow("i9", "broken")])
    writer.write_shard(1, rows("c"))
    writer.finish(2, {"items": 3})
    return artifact


def test_rows_come_back_in_shard_order_with_the_quarantine_in_the_manifest(tmp_path: Path):
    artifact = make(tmp_path)

    assert artifact.read()["value"].to_pylist() == ["a", "b", "c"]
    assert artifact.manifest().quarantined == [{"row": "i9", "reason": "broken"}]
    assert artifact.manifest().counts == {"items": 3}


def test_an_interrupted_run_ends_with_the_same_bytes_as_an_uninterrupted_one(tmp_path: Path):
    make(tmp_path / "whole")
    killed = Artifact(str(tmp_path / "killed"), "summaries").write(RECIPE)
    killed.write_shard(0, rows("a", "b"), [QuarantinedRow("i9", "broken")])
    (tmp_path / "killed/summaries" / RECIPE.fingerprint / "part-00001.parquet.unfinished").touch()

    make(tmp_path / "killed")

    assert files_under(tmp_path / "killed") == files_under(tmp_path / "whole")


def test_an_unfinished_artifact_is_missing_and_the_message_names_the_step(tmp_path: Path):
    artifact = Artifact(str(tmp_path), "summaries")
    artifact.write(RECIPE).write_shard(0, rows("a"))

    with pytest.raises(ArtifactMissing, match="run `msr summarize-images` first"):
        artifact.read()


def test_a_changed_definition_has_its_own_folder_and_the_old_one_goes(tmp_path: Path):
    make(tmp_path)
    changed = Recipe("summarize-images", {"prompt": "p2"}, "m1", {"items": "f1"})
    assert not Artifact(str(tmp_path), "summaries").write(changed).has_shard(0)

    make(tmp_path, changed)

    folders = [path.name for path in (tmp_path / "summaries").iterdir() if path.is_dir()]
    assert folders == [changed.fingerprint]


def test_finishing_without_a_shard_is_refused(tmp_path: Path):
    writer = Artifact(str(tmp_path), "summaries").write(RECIPE)
    writer.write_shard(0, rows("a"))

    with pytest.raises(ArtifactMissing, match=r"lacks shards \[1\]"):
        writer.finish(2, {})


def test_a_shard_written_again_without_faults_leaves_no_quarantine_behind(tmp_path: Path):
    writer = Artifact(str(tmp_path), "summaries").write(RECIPE)
    writer.write_shard(0, rows("a"), [QuarantinedRow("i9", "broken")])

    writer.write_shard(0, rows("a", "b"))

    assert writer.read_quarantine(0) == []


def test_a_folder_that_cannot_be_made_is_reported_before_any_work(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(FolderNotWritable, match="--data"):
        Artifact(str(tmp_path / "file"), "summaries").write(RECIPE)


def test_a_manifest_cut_in_half_is_named(tmp_path: Path):
    artifact = make(tmp_path)
    manifest = tmp_path / "summaries/manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:40])

    with pytest.raises(ArtifactMismatch, match=r"manifest\.json"):
        artifact.manifest()


def test_an_object_store_works_like_a_folder():
    artifact = Artifact("memory://bucket/data", "summaries")
    writer = artifact.write(RECIPE)
    writer.write_shard(0, rows("a"))
    writer.finish(1, {})

    assert artifact.read()["value"].to_pylist() == ["a"]


@pytest.mark.parametrize(
    ("start", "stop", "tables"),
    [
        (0, 3, [["a", "b"], ["c"]]),
        (0, 2, [["a", "b"]]),
        (1, 3, [["b"], ["c"]]),
        (1, 2, [["b"]]),
        (2, 3, [["c"]]),
        (2, 2, []),
    ],
)
def test_rows_are_read_across_the_shards_that_hold_them(
    tmp_path: Path, start: int, stop: int, tables: list[list[str]]
):
    read = make(tmp_path).read_rows(start, stop, ["value"])

    assert [table["value"].to_pylist() for table in read] == tables


def test_rows_in_one_shard_are_read_though_another_is_gone(tmp_path: Path):
    artifact = make(tmp_path)
    assert [table.num_rows for table in artifact.read_rows(0, 3)] == [2, 1]
    [lost] = tmp_path.glob("summaries/*/part-00000.parquet")
    lost.unlink()

    assert [table["value"].to_pylist() for table in artifact.read_rows(2, 3)] == [["c"]]


def test_an_absolute_root_names_the_folder_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    root = absolute_root("data")
    monkeypatch.chdir("/")

    assert Artifact(root, "summaries").exists()
    assert absolute_root("memory://bucket/data") == "memory:///bucket/data"


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b""])
def test_a_damaged_part_is_named_with_the_remedy(tmp_path: Path, damage):
    artifact = make(tmp_path)
    [part] = tmp_path.glob("summaries/*/part-00000.parquet")
    part.write_bytes(damage(part.read_bytes()))

    with pytest.raises(ArtifactMismatch, match=r"part-00000\.parquet is damaged.*summarize-images"):
        artifact.read()


def test_a_part_that_the_disk_does_not_give_is_no_damage(tmp_path: Path):
    artifact = make(tmp_path)
    [part] = tmp_path.glob("summaries/*/part-00000.parquet")
    part.unlink()
    part.mkdir()

    with pytest.raises(IsADirectoryError):
        artifact.read()


def test_an_artifact_is_whole_while_none_of_its_parts_is_gone(tmp_path: Path):
    artifact = make(tmp_path)
    assert artifact.is_whole()
    next(tmp_path.glob("summaries/*/part-00001.parquet")).unlink()

    assert not artifact.is_whole()
    assert not Artifact(str(tmp_path), "items").is_whole()


# A thread of pyarrow that still holds the file aborts a process that ends.
READ_AND_COUNT_THREADS = """
import os, sys
import pyarrow as pa
from services.core.artifacts import Artifact

pa.array(["starts the allocator's own thread"])
before = len(os.listdir("/proc/self/task"))
table = Artifact(sys.argv[1], "summaries").read()
print(table.num_columns, len(os.listdir("/proc/self/task")) - before)
"""


def test_reading_leaves_no_thread_behind(tmp_path: Path):
    columns = {name: ["a", "b"] for name in "vwxyz"}
    writer = Artifact(str(tmp_path), "summaries").write(RECIPE)
    writer.write_shard(0, pa.table(columns))
    writer.finish(1, {"items": 2})

    ended = subprocess.run(
        [sys.executable, "-c", READ_AND_COUNT_THREADS, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert ended.stdout.split() == ["5", "0"]
