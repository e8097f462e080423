"""The HTTP server of a worker in a process of its own: `/health/live` and `/metrics`.

Both need no key, so it listens on loopback unless the settings name another address.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.process.http_server import QuietServer, listen

log = structlog.get_logger(__name__)


@asynccontextmanager
async def listening(
    registry: CollectorRegistry, *, host: str, port: int, on_listening: Callable[[str], None]
) -> AsyncIterator[None]:
    """Answer while the block runs; InputError if the port is not available."""

    async def live(_: Request) -> Response:
        """Answers as long as the event loop runs; the updates run on the same loop."""
        return JSONResponse({"status": "ok"})

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    app = Starlette(routes=[Route("/health/live", live), Route("/metrics", metrics)])
    listener = listen(host, port, remedy="MSR_WORKER_HOST and MSR_WORKER_PORT")
    started = asyncio.Event()
    server = QuietServer(app, listener, on_listening=lambda _: started.set())
    serving = asyncio.create_task(server.answer())
    try:
        await started.wait()
        log.info("worker_listening", url=server.url)
        on_listening(server.url)
        yield
    finally:
        server.should_exit = True
        await serving
