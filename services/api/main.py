"""The HTTP API as an application, and how it is served. `msr serve` starts it.

async with open_store(settings) as store:
    source = PublishedOrdering(data, engine.identity)
    adapters = LiveAdapters(engine, AdapterSelections(store.connection), folders)
    app = create_app(
        Dependencies(store=store, engine=engine, ordering=source.load(), adapters=adapters)
    )
    await serve(app, host="127.0.0.1", port=8000, background=worker.run)
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import structlog
from fastapi import FastAPI

from services.api import route_guard
from services.api.dependencies import Dependencies
from services.api.http import problems
from services.api.http.auth import AccessRules
from services.api.http.body_limit import BodyLimit
from services.api.http.encoded_paths import EncodedPaths
from services.api.http.request_log import RequestLog
from services.api.http.security_headers import SecurityHeaders
from services.api.routes import adapters as adapter_routes
from services.api.routes import (
    console,
    interactions,
    items,
    operations,
    recommend,
    users,
)
from services.process.http_server import QuietServer, listen
from services.process.signals import set_by_signals
from services.telemetry import build

log = structlog.get_logger(__name__)

# Work that runs next to the server until the event is set.
Background = Callable[[asyncio.Event], Awaitable[None]]
Lifespan = Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]

DESCRIPTION = """
Multimodal sequential recommendation: a written preference for every user, carried forward as
interactions arrive, and a multimodal model that says how likely the user is to take an item next.

Every error is a problem document (RFC 9457) with a stable `type`.
"""


class _Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            problems.add_problem_schema(document)
            route_guard.describe(document, self.routes, self.state.rules)
        assert self.openapi_schema is not None
        return self.openapi_schema


def describe(rules: AccessRules) -> dict[str, Any]:
    """The OpenAPI document of an application with these rules; needs no store and no engine."""
    return _routed(rules).openapi()


def create_app(deps: Dependencies) -> FastAPI:
    """The application over what its routes share."""
    limits = deps.limits

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await deps.caveats.look()  # the first answer about health knows of the texts
        followed = [
            _follow(deps.live.look, limits.reload_seconds),
            _follow(deps.caveats.look, limits.reload_seconds),
            _follow(deps.backlog.look, limits.backlog_seconds),
            _follow(deps.redis_watch.look, limits.redis_seconds),
            _follow(deps.adapters.look, limits.adapter_poll_seconds),
            deps.shadow.run(),
        ]
        tasks = [asyncio.create_task(each) for each in followed]
        try:
            async with deps.fetch_client:
                yield
        finally:
            for task in tasks:
                task.cancel()

    app = _routed(deps.access.rules, lifespan)
    app.state.deps = deps
    problems.register(app)
    # The last one added is the outermost.
    app.add_middleware(EncodedPaths)
    app.add_middleware(
        BodyLimit,
        max_bytes=limits.max_body_bytes,
        by_path={"/items": limits.max_item_body_bytes},
    )
    app.add_middleware(RequestLog, metrics=deps.metrics)
    app.add_middleware(SecurityHeaders)
    return app


async def _follow(look: Callable[[], Awaitable[None]], every_seconds: float) -> None:
    """Look until cancelled."""
    while True:
        await look()
        await asyncio.sleep(every_seconds)


def _routed(rules: AccessRules, lifespan: Lifespan | None = None) -> FastAPI:
    """The application with its routes and their description, without dependencies."""
    app = _Api(
        title="MSR",
        summary="Multimodal sequential recommendation",
        description=DESCRIPTION,
        version=build.version(),
        lifespan=lifespan,
        redirect_slashes=False,
        # Those pages load scripts from other hosts; the document itself is at /openapi.json.
        docs_url=None,
        redoc_url=None,
    )
    app.state.rules = rules
    for routes in (recommend, interactions, users, items, adapter_routes, operations, console):
        app.include_router(routes.router)
    return app


# --- serving -------------------------------------------------------------------------------------


async def serve(
    app: FastAPI,
    *,
    host: str,
    port: int,
    background: Background | None = None,
    on_listening: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
    shutdown_seconds: float = 10.0,
) -> None:
    """Serve, and do the `background` work, until SIGINT, SIGTERM or `stop`; then end both in order.

    Port 0 takes a free one; `on_listening` gets the base URL as soon as requests are answered.
    Background work that raises ends the server, and its exception is raised here; work that returns
    does not. Raises InputError if the port is not available.
    """
    stop = stop or asyncio.Event()

    def announce(url: str) -> None:
        log.info("server_listening", url=url)
        if on_listening is not None:
            on_listening(url)

    async def work() -> None:
        try:
            if background is not None:
                await background(stop)
        except BaseException:
            stop.set()
            raise

    listener = listen(host, port, remedy="--host and --port")
    server = QuietServer(app, listener, on_listening=announce, shutdown_seconds=shutdown_seconds)
    url = server.url
    serving = asyncio.create_task(server.answer())
    working = asyncio.create_task(work())
    stopping = asyncio.create_task(stop.wait())
    try:
        with set_by_signals(stop):
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        cast(Dependencies, app.state.deps).streams.end_all()  # the server waits for open ones
        server.should_exit = True
        # The handlers are removed: a second signal ends the process at once.
        _, late = await asyncio.wait({working}, timeout=shutdown_seconds)
        if late:
            working.cancel()
            await asyncio.wait(late)
        await serving
    log.info("server_stopped", url=url)
    if not working.cancelled():
        working.result()
