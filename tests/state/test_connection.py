"""Errors of Redis are ours, and name neither passwords nor stack frames of the library."""

import asyncio
import socket
import struct

import pytest
import uvloop

from benchmarks.faults.supervised_process import free_port
from services.core.errors import InputError, StateError, StateUnavailable
from services.state.connection import Connection, GroupMissing, without_password
from services.state.user_store import Store
from tests.builders import an_interaction, put_items


async def test_a_redis_that_is_not_there_is_unavailable_and_the_password_stays_secret():
    url = f"redis://user:secret@127.0.0.1:{free_port()}/0"

    with pytest.raises(StateUnavailable, match="REDIS_URL") as failure:
        await Store.open(url)

    assert "secret" not in str(failure.value)


def test_a_redis_that_hangs_up_is_unavailable_on_the_loop_that_ships():
    # uvloop has an error of its own for writing to a connection that the other side has closed.
    async def errors_of_many_calls() -> set[type[BaseException]]:
        def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            at_once = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            writer.transport.abort()

        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            connection = Connection(f"redis://127.0.0.1:{port}/0", timeout_seconds=5)
            calls = [connection.call("PING") for _ in range(200)]
            failed = await asyncio.gather(*calls, return_exceptions=True)
            await connection.close()
        return {type(each) for each in failed if isinstance(each, BaseException)}

    assert uvloop.run(errors_of_many_calls()) == {StateUnavailable}


async def test_an_address_that_is_no_redis_url_is_refused():
    with pytest.raises(InputError, match="redis://HOST"):
        await Store.open("http://localhost:6379")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost/0", "redis://localhost/0"),
        ("rediss://:pw@host:1/2", "rediss://:***@host:1/2"),
        ("redis://me:pw@host", "redis://me:***@host"),
        ("unix:///tmp/redis.sock?password=pw&db=0", "unix:///tmp/redis.sock?password=***&db=0"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str):
    assert without_password(url) == shown


async def test_scripts_are_sent_again_to_a_redis_that_lost_them(store: Store):
    await put_items(store, ["i1"])
    await store.connection.call("SCRIPT", "FLUSH")

    outcomes = await store.ingest([an_interaction(user_id=f"u{k}") for k in range(3)])

    assert [outcome.outcome for outcome in outcomes] == ["accepted"] * 3


async def test_a_command_that_redis_refuses_is_a_state_error(store: Store):
    await store.connection.call("SET", "text", "words")

    with pytest.raises(StateError, match="integer"):
        await store.connection.call("INCR", "text")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ("NOGROUP No such key 'x'", GroupMissing),
        ("UNBLOCKED the stream key no longer exists", GroupMissing),
        ("UNBLOCKED force unblock from blocking operation", StateUnavailable),
        ("CLUSTERDOWN The cluster is down", StateUnavailable),
        ("MASTERDOWN Link with MASTER is down", StateUnavailable),
        ("TRYAGAIN Multiple keys request during rehashing of slot", StateUnavailable),
        ("MISCONF Errors writing to the AOF file", StateUnavailable),
        ("NOREPLICAS Not enough good replicas to write", StateUnavailable),
        ("READONLY You can't write against a read only replica", StateUnavailable),
        ("NOPERM this user has no permissions", StateError),
    ],
)
async def test_what_redis_says_becomes_an_error_of_the_right_kind(
    store: Store, reply: str, error: type[StateError]
):
    with pytest.raises(StateError) as failure:
        await store.connection.call("EVAL", "return redis.error_reply(ARGV[1])", 0, reply)

    assert type(failure.value) is error


async def test_a_redis_out_of_memory_is_unavailable(redis_url: str, store: Store):
    connection = await Connection.open(redis_url, timeout_seconds=5)
    await connection.call("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(StateUnavailable, match="maxmemory"):
            await store.save_published("anything")
    finally:
        await connection.call("CONFIG", "SET", "maxmemory", "0")
        await connection.close()


@pytest.mark.parametrize("num_ticks", range(12))
async def test_a_call_that_is_cancelled_ends_whatever_it_was_doing(store: Store, num_ticks: int):
    call = asyncio.create_task(store.connection.call("BLPOP", "nothing", 0.2))
    for _ in range(num_ticks):
        await asyncio.sleep(0)
    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
