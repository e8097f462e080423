"""What serves HTTP is what the extra `serve` ships: uvloop and httptools."""

import asyncio

import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.process.http_server import quiet_config, run_program


def test_programs_run_on_uvloop():
    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert isinstance(run_program(loop()), uvloop.Loop)


def test_requests_are_parsed_by_httptools():
    config = quiet_config(lambda: None, shutdown_seconds=1)

    config.load()

    assert config.http_protocol_class is HttpToolsProtocol
