"""The embedded Redis: found again after a restart, shared, and never left behind."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.core.errors import FolderNotWritable, StateUnavailable
from services.core.records import ItemId
from services.state.embedded_redis.server import EmbeddedRedis
from services.state.user_store import Store
from services.state.work_queue import WorkQueue
from tests.builders import an_item, the_user

HOLD = """
import sys
from services.state.embedded_redis.server import EmbeddedRedis
embedded = EmbeddedRedis(sys.argv[1])
print(embedded.start(), flush=True)
sys.stdin.read()
"""


def another_program(folder: Path) -> "subprocess.Popen[str]":
    """Uses the server on this folder until its standard input ends."""
    program = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert program.stdout is not None
    assert program.stdout.readline().startswith("unix://")
    return program


async def put(url: str, item_id: str) -> int:
    """Puts an item; gives the server's process id."""
    store = await Store.open(url)
    await store.items.put_item(an_item(item_id), summary="kept")
    information = (await store.connection.call("INFO", "server")).decode()
    await store.close()
    return int(information.split("process_id:")[1].split()[0])


async def items_at(url: str, *item_ids: str) -> set[str]:
    store = await Store.open(url)
    known = await store.items.item_ids_known(ItemId(item_id) for item_id in item_ids)
    await store.close()
    return set(known)


def runs(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_restart_finds_what_was_stored(tmp_path: Path):
    async with EmbeddedRedis(tmp_path / "state") as url:
        server = await put(url, "i1")
    assert not runs(server)

    async with EmbeddedRedis(tmp_path / "state") as url:
        assert await items_at(url, "i1", "i2") == {"i1"}


async def test_two_programs_share_one_server_and_the_last_to_leave_stops_it(tmp_path: Path):
    other = another_program(tmp_path)
    async with EmbeddedRedis(tmp_path) as url:
        server = await put(url, "i1")
        other.communicate("")
        assert await put(url, "i2") == server

    assert not runs(server)


async def test_the_server_outlives_the_program_that_started_it_while_another_uses_it(
    tmp_path: Path,
):
    first = EmbeddedRedis(tmp_path)
    server = await put(first.start(), "i1")
    second = another_program(tmp_path)

    first.stop()

    assert runs(server)
    second.communicate("")


async def test_a_killed_program_leaves_no_server_and_loses_nothing(tmp_path: Path):
    killed = another_program(tmp_path)
    joined = EmbeddedRedis(tmp_path)
    server = await put(joined.start(), "i1")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    joined.stop()

    assert not runs(server)
    async with EmbeddedRedis(tmp_path) as url:
        assert await items_at(url, "i1") == {"i1"}


async def test_a_program_that_is_killed_alone_does_not_block_the_next(tmp_path: Path):
    killed = another_program(tmp_path)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()

    async with EmbeddedRedis(tmp_path) as url:
        server = await put(url, "i1")

    assert not runs(server)


async def test_a_server_that_is_killed_comes_back_with_its_data(tmp_path: Path):
    async with EmbeddedRedis(tmp_path) as url:
        os.kill(await put(url, "i1"), signal.SIGKILL)
        async with asyncio.timeout(30):
            while not await serves(url):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        assert await items_at(url, "i1") == {"i1"}


async def serves(url: str) -> bool:
    try:
        await (await Store.open(url)).close()
    except StateUnavailable:
        return False
    return True


async def test_a_folder_with_a_long_path_will_do(tmp_path: Path):
    folder = tmp_path / ("long" * 20) / "state %20? #1"

    async with EmbeddedRedis(folder) as url:
        await put(url, "i1")

    async with EmbeddedRedis(folder) as url:
        assert await items_at(url, "i1") == {"i1"}


@pytest.mark.parametrize("file", ["redis-6.2.aof", "redis-6.2-rewritten.aof"])
async def test_the_append_only_file_of_redis_6_2_is_served_and_continued(tmp_path: Path, file: str):
    shutil.copy(Path(__file__).with_name(file), tmp_path / "appendonly.aof")

    async with EmbeddedRedis(tmp_path) as url:
        assert await items_at(url, "i1") == {"i1"}
        await put(url, "i2")

    async with EmbeddedRedis(tmp_path) as url:
        assert await items_at(url, "i1", "i2") == {"i1", "i2"}
        store = await Store.open(url)
        worker = WorkQueue(store, consumer="w")
        await worker.create_groups()
        waiting = await worker.read("users", count=9, block_seconds=1)
        assert (await the_user(store)).item_ids[0] == "i1"
        await store.close()
    assert [(each.subject, each.version) for each in waiting][:1] == [("u1", "1")]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(FolderNotWritable, match="file"):
        EmbeddedRedis(tmp_path / "file" / "state").start()


def test_a_server_that_cannot_start_says_why(tmp_path: Path):
    (tmp_path / "appendonly.aof").write_text("not an append-only file")

    with pytest.raises(StateUnavailable, match="Bad file format"):
        EmbeddedRedis(tmp_path).start()
