"""What serves HTTP is what the extra `serve` ships: uvloop and httptools. A port can be kept."""

import asyncio
import contextlib
import socket
import struct
import sys
from collections.abc import Iterator

import pytest
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.core.errors import InputError
from services.process.http_server import QuietServer, listen, reserved, run_program

IP_LOCAL_PORT_RANGE = 51  # of Linux since 6.3; Python has no name for it


def test_programs_run_on_uvloop():
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert isinstance(run_program(loop()), uvloop.Loop)


def test_requests_are_parsed_by_httptools():
    with listen("127.0.0.1", 0, remedy="another machine") as listener:
        config = QuietServer(lambda: None, listener, on_listening=print).config

    config.load()

    assert config.http_protocol_class is HttpToolsProtocol


@contextlib.contextmanager
def asking_for_any_port(among: int) -> Iterator[socket.socket]:
    """A socket to which the system can give this one port alone."""
    with socket.socket() as asking:
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one = struct.pack("I", among | among << 16)
        asking.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, one)
        yield asking


def can_ask() -> bool:
    try:
        with asking_for_any_port(among=40_000):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not can_ask(), reason="needs the IP_LOCAL_PORT_RANGE of Linux 6.3")
def test_a_reserved_port_is_given_to_nobody_who_asks_for_any():
    with (
        reserved("127.0.0.1", 0, remedy="another machine") as port,
        asking_for_any_port(port) as asking,
        pytest.raises(OSError, match="Address already in use"),
    ):
        asking.bind(("127.0.0.1", 0))

    with asking_for_any_port(port) as asking:
        asking.bind(("127.0.0.1", 0))
        assert asking.getsockname()[1] == port


@pytest.mark.skipif(sys.platform != "linux", reason="on other systems a port is not kept")
def test_who_names_a_reserved_port_can_listen_on_it():
    with reserved("127.0.0.1", 0, remedy="another machine") as port:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))

        with listen("127.0.0.1", port, remedy="another machine"):
            socket.create_connection(("127.0.0.1", port)).close()


def test_a_port_on_which_somebody_listens_cannot_be_reserved():
    with listen("127.0.0.1", 0, remedy="another machine") as listener:
        port = listener.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"cannot listen on 127.0.0.1 port {port}.*another"),
            reserved("127.0.0.1", port, remedy="another machine"),
        ):
            pass
