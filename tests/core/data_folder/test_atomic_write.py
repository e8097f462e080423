"""A file is seen as it was or as it is to be, whoever writes it and whatever fails."""

import subprocess
import sys
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from services.core.data_folder.atomic_write import atomic_write, unfinished_file

NUM_BYTES = 300_000
WRITER = """
import sys
from services.core.data_folder.atomic_write import atomic_write

for _ in range(100):
    atomic_write(sys.argv[1], sys.argv[2].encode() * int(sys.argv[3]))
"""


def fill_the_disk(path: Path) -> None:
    with unfinished_file(path) as unfinished:
        Path(unfinished).write_bytes(b"la")
        raise OSError("no space")


def test_two_processes_that_write_one_name_never_mix_their_bytes(tmp_path: Path):
    path = tmp_path / "file"
    atomic_write(path, b"a" * NUM_BYTES)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter, str(NUM_BYTES)])
        for letter in "ab"
    ]

    seen = {path.read_bytes()}
    while any(writer.poll() is None for writer in writers):
        seen.add(path.read_bytes())

    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen == {b"a" * NUM_BYTES, b"b" * NUM_BYTES}
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_earlier_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "file"
    atomic_write(path, b"earlier")

    with pytest.raises(OSError, match="no space"):
        fill_the_disk(path)

    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_an_object_store_is_replaced_alike():
    store = MemoryFileSystem()
    for data in (b"earlier", b"later"):
        atomic_write("/atomic/file", data, store)

    assert store.cat_file("/atomic/file") == b"later"
    assert store.ls("/atomic", detail=False) == ["/atomic/file"]
