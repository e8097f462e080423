"""What serves HTTP is what the extra `serve` ships: uvloop and httptools."""

import asyncio

import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.process.http_server import QuietServer, listen, run_program


def test_programs_run_on_uvloop():
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert isinstance(run_program(loop()), uvloop.Loop)


def test_requests_are_parsed_by_httptools():
    with listen("127.0.0.1", 0, remedy="another machine") as listener:
        config = QuietServer(lambda: None, listener, on_listening=print).config

    config.load()

    assert config.http_protocol_class is HttpToolsProtocol
