"""The HTTP API as an application, and how it is served. `msr serve` starts it.

async with open_store(settings) as store:
    source = PublishedOrdering(data, engine.identity)
    adapters = LiveAdapters(engine, AdapterSelections(store.connection), folders)
    app = create_app(store=store, engine=engine, ordering=source.load(), adapters=adapters)
    await serve(app, host="127.0.0.1", port=8000, background=[worker.run])
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from services.api import route_guard
from services.api.adapters.active_adapters import LiveAdapters
from services.api.adapters.experiment_outcomes import Outcomes
from services.api.browse.search import Directory
from services.api.browse.thumbnails import Covers
from services.api.dependencies import Dependencies
from services.api.http import problems
from services.api.http.auth import Access, AccessRules
from services.api.http.body_limit import BodyLimit
from services.api.http.encoded_paths import EncodedPaths
from services.api.http.event_streams import Streams
from services.api.http.request_log import RequestLog
from services.api.http.security_headers import SecurityHeaders
from services.api.limits import Limits
from services.api.monitoring.backlog import Backlog
from services.api.monitoring.engine_health import EngineWatch
from services.api.monitoring.metrics import Metrics
from services.api.monitoring.redis_health import RedisWatch
from services.api.recommend.cascade import Cascade
from services.api.recommend.item_cache import ItemCache
from services.api.recommend.model_scoring import CandidateScorer
from services.api.recommend.ordering import Ordering
from services.api.recommend.ordering_reload import LiveOrdering, PublishedOrdering
from services.api.recommend.shadow_scoring import ShadowScorer
from services.api.routes import adapters as adapter_routes
from services.api.routes import (
    console,
    interactions,
    items,
    operations,
    recommend,
    users,
)
from services.core.records import Item, ItemId
from services.engines.contract import Engine, Replicated
from services.engines.instrumented import unwrapped
from services.fetch.download import CheckedClient
from services.process.http_server import QuietServer, base_url, listen, quiet_config
from services.process.signals import set_by_signals
from services.state.api_keys import ApiKeys
from services.state.exposures import ExposureLog
from services.state.key_scan import KeyScan
from services.state.user_store import Store
from services.telemetry import build
from services.telemetry.registry import new_registry

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


def create_app(
    *,
    store: Store,
    engine: Engine,
    ordering: Ordering,
    adapters: LiveAdapters,
    source: PublishedOrdering | None = None,
    limits: Limits | None = None,
    rules: AccessRules | None = None,
    registry: CollectorRegistry | None = None,
    data: str | None = None,
) -> FastAPI:
    """The application over a store and an engine that the caller opened and will close.

    `adapters` are those of the engine. With a `source` the ordering follows what is published
    there. Without `rules` no route needs an API key. GET /metrics shows all of `registry`, and GET
    /progress the offline steps in the data folder `data`.
    """
    limits, rules = limits or Limits(), rules or AccessRules()
    metrics = Metrics(registry or new_registry())
    deps = _assemble(store, engine, ordering, adapters, source, limits, rules, metrics, data)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        following = [
            asyncio.create_task(deps.live.follow()),
            asyncio.create_task(deps.backlog.follow()),
            asyncio.create_task(deps.redis_watch.follow()),
            asyncio.create_task(deps.adapters.follow()),
            asyncio.create_task(deps.shadow.run()),
        ]
        try:
            async with deps.fetch_client:
                yield
        finally:
            for task in following:
                task.cancel()

    app = _routed(rules, lifespan)
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


def _assemble(
    store: Store,
    engine: Engine,
    ordering: Ordering,
    adapters: LiveAdapters,
    source: PublishedOrdering | None,
    limits: Limits,
    rules: AccessRules,
    metrics: Metrics,
    data: str | None,
) -> Dependencies:
    async def load_items(item_ids: list[ItemId]) -> list[Item]:
        return [record.item for record in (await store.items.load_items(item_ids)).values()]

    metrics.redis_unavailable.set_function(lambda: store.connection.health.is_unavailable)
    behind = unwrapped(engine)
    if isinstance(behind, Replicated):
        metrics.watch_replicas(behind)
    metrics.adapter_sync_failed.set_function(lambda: bool(adapters.problem))
    watch = EngineWatch(
        lambda: adapters.current.active.scorer,
        silence_seconds=limits.engine_silence_seconds,
        failure_seconds=limits.engine_failure_seconds,
        wait_seconds=limits.engine_wait_seconds,
    )
    items_held = ItemCache(load_items, limits.item_cache_bytes, metrics.note_item_lookups)
    metrics.item_cache_bytes.set_function(lambda: items_held.num_bytes)
    scorer = CandidateScorer(
        store,
        items_held,
        watch,
        metrics,
        max_in_flight=limits.max_in_flight,
    )
    live = LiveOrdering(ordering, metrics, source, poll_seconds=limits.reload_seconds)
    shadow = ShadowScorer(adapters, items_held, metrics, is_busy=lambda: scorer.num_under_way > 0)
    key_scan = KeyScan(store.connection)
    covers = Covers(items_held, limits.cover_cache_bytes, max_at_once=limits.max_images_at_once)
    return Dependencies(
        store=store,
        adapters=adapters,
        shadow=shadow,
        outcomes=Outcomes(ExposureLog(store.connection), adapters, metrics),
        live=live,
        limits=limits,
        metrics=metrics,
        access=Access(ApiKeys(store.connection), rules, metrics),
        cascade=Cascade(store, live, adapters, scorer, shadow, limits, metrics),
        backlog=Backlog(
            store,
            metrics,
            max_waiting=limits.max_backlog,
            poll_seconds=limits.backlog_seconds,
        ),
        redis_watch=RedisWatch(store, metrics, poll_seconds=limits.redis_seconds),
        engine_watch=watch,
        fetch_client=CheckedClient(limits.fetch),
        image_slots=asyncio.Semaphore(limits.max_images_at_once),
        key_scan=key_scan,
        directory=Directory(key_scan),
        covers=covers,
        streams=Streams(store, limits, metrics),
        data=data,
    )


# --- serving -------------------------------------------------------------------------------------


async def serve(
    app: FastAPI,
    *,
    host: str,
    port: int,
    background: Sequence[Background] = (),
    on_listening: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
    shutdown_seconds: float = 10.0,
) -> None:
    """Serve, and run `background` tasks, until SIGINT, SIGTERM or `stop`; then end all in order.

    Port 0 takes a free one; `on_listening` gets the base URL as soon as requests are answered. A
    background task that raises ends the server, and its exception is raised here; one that returns
    does not. Raises InputError if the port is not available.
    """
    stop = stop or asyncio.Event()
    listener = listen(host, port, remedy="--host and --port")
    url = base_url(listener)
    server = QuietServer(
        quiet_config(app, shutdown_seconds=shutdown_seconds),
        lambda: _announce(url, on_listening),
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    works = [asyncio.ensure_future(work(stop)) for work in background]
    stopping = asyncio.create_task(stop.wait())
    for work in works:
        work.add_done_callback(lambda ended: stop.set() if _failed(ended) else None)
    try:
        with set_by_signals(stop):
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        cast(Dependencies, app.state.deps).streams.end_all()  # the server waits for open ones
        server.should_exit = True
        # The handlers are removed: a second signal ends the process at once.
        await _end(works, shutdown_seconds)
        await serving
        listener.close()
    log.info("server_stopped", url=url)
    for work in works:
        if _failed(work):
            work.result()


def _announce(url: str, on_listening: Callable[[str], None] | None) -> None:
    log.info("server_listening", url=url)
    if on_listening is not None:
        on_listening(url)


def _failed(work: "asyncio.Future[None]") -> bool:
    return work.done() and not work.cancelled() and work.exception() is not None


async def _end(works: Sequence["asyncio.Future[None]"], seconds: float) -> None:
    """Wait for the tasks to end, then cancel the rest."""
    if not works:
        return
    _, late = await asyncio.wait(works, timeout=seconds)
    for work in late:
        work.cancel()
    if late:
        await asyncio.wait(late)
