from pathlib import Path

import pytest

from services.core.errors import FolderNotWritable
from services.fetch.cache import DownloadCache

URL = "https://covers.example/1.png"


def test_a_kept_download_is_found_again_by_another_run(tmp_path: Path):
    DownloadCache(str(tmp_path)).save(URL, b"image")

    again = DownloadCache(str(tmp_path))

    assert URL in again
    assert again.load(URL) == b"image"
    assert again.load("https://covers.example/2.png") is None


def test_a_download_that_was_killed_half_way_does_not_count(tmp_path: Path):
    cache = DownloadCache(str(tmp_path))
    cache.save(URL, b"image")
    [kept] = [path for path in tmp_path.rglob("*") if path.is_file()]
    kept.rename(f"{kept}.unfinished")

    assert cache.load(URL) is None


def test_a_later_download_replaces_an_earlier_one(tmp_path: Path):
    cache = DownloadCache(str(tmp_path))
    cache.save(URL, b"broken")
    cache.save(URL, b"image")

    assert cache.load(URL) == b"image"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "downloads").write_text("a file stands where the folder should be")

    with pytest.raises(FolderNotWritable, match="downloads"):
        DownloadCache(str(tmp_path)).save(URL, b"image")
