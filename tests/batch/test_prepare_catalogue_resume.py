"""Killed at any moment and started again: the same bytes, and nothing done twice."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from services.batch.prepare_catalogue import run
from services.batch.readers.plain import Plain
from tests.batch.readers.builders import a_plain_catalogue, many_items
from tests.fetch.image_server import Answer, ImageServer, an_image

NUM_ITEMS = 30
PROGRAM = """
import json, sys
from services.batch.prepare_catalogue import run
from services.batch.readers.plain import Plain
folder, options = sys.argv[1], json.loads(sys.argv[2])
run(Plain(folder), **options)
"""


def files(data: Path) -> dict[str, bytes]:
    return {str(p.relative_to(data)): p.read_bytes() for p in data.rglob("*") if p.is_file()}


@pytest.fixture
def server():
    images = [an_image(f"rgb({8 * k}, {255 - 8 * k}, 99)") for k in range(NUM_ITEMS)]
    with ImageServer({f"/{k}.png": Answer(p) for k, p in enumerate(images)}) as server:
        yield server


def shop_and_options(server: ImageServer, tmp_path: Path) -> tuple[Path, dict]:
    interactions = [("u", f"i{k}", k) for k in range(NUM_ITEMS)] + [("u", "ghost", 5)]
    items = [*many_items(NUM_ITEMS, server.url("/{}.png")), ("i0", "Again", "")]
    options = {"image_size": 28, "items_per_shard": 4, "allow_private": True}
    folder = a_plain_catalogue(tmp_path / "shop", items, interactions)
    return folder, options | {"allowed_hosts": [server.host]}


@pytest.mark.parametrize("fatal_request", [1, 11, 29])
def test_killed_while_fetching_it_ends_with_the_same_bytes(server, tmp_path, fatal_request):
    folder, options = shop_and_options(server, tmp_path)
    run(Plain(folder), data=str(tmp_path / "whole"), **options)
    server.requests.clear()
    options["data"] = str(tmp_path / "killed")
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), json.dumps(options)])

    def kill_in_time() -> None:
        if server.requests.total() >= fatal_request:
            os.kill(child.pid, signal.SIGKILL)

    server.on_request = kill_in_time
    assert child.wait() == -signal.SIGKILL
    server.on_request = lambda: None
    run(Plain(folder), **options)

    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    # Only what was on its way at the moment of the kill is asked for again.
    in_flight = 8
    assert server.requests.total() <= NUM_ITEMS + in_flight


def test_finished_shards_are_not_made_again(server, tmp_path):
    folder, options = shop_and_options(server, tmp_path)
    data = tmp_path / "data"
    run(Plain(folder), data=str(data), **options)
    expected = files(data)
    (data / "items" / "manifest.json").unlink()  # as if killed before the end
    [lost] = data.glob("items/*/part-00003.parquet")
    lost.unlink()
    kept = {path: path.stat().st_mtime_ns for path in data.glob("i*/*/part-*") if path != lost}

    run(Plain(folder), data=str(data), **options)

    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert files(data) == expected
    assert server.requests.total() == NUM_ITEMS  # the lost shard's covers came from those kept


def without_covers(part: Path) -> None:
    """Make it a part of a version that kept no covers for people."""
    pq.write_table(pq.read_table(part).drop_columns("cover"), part)


@pytest.mark.parametrize("num_old", [3, 8])
def test_unfinished_parts_of_a_version_without_covers_are_made_again(server, tmp_path, num_old):
    folder, options = shop_and_options(server, tmp_path)
    data = tmp_path / "data"
    run(Plain(folder), data=str(data), **options)
    expected = files(data)
    (data / "items" / "manifest.json").unlink()  # as if killed before the end
    parts = sorted(data.glob("items/*/part-*"))
    for part in parts[:num_old]:
        without_covers(part)
    kept = {path: path.stat().st_mtime_ns for path in parts[num_old:]}

    run(Plain(folder), data=str(data), **options)

    assert files(data) == expected
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert server.requests.total() == NUM_ITEMS  # from the covers that were kept


def test_finished_items_of_a_version_without_covers_stay_as_they_are(server, tmp_path):
    folder, options = shop_and_options(server, tmp_path)
    data = tmp_path / "data"
    run(Plain(folder), data=str(data), **options)
    for part in data.glob("items/*/part-*"):
        without_covers(part)
    before = files(data)

    run(Plain(folder), data=str(data), **options)

    assert files(data) == before
