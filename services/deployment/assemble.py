"""Assembles a deployment: settings, engine, Redis, API and worker.

Only the commands of `msr` and the demo use it; no other file knows both the API and the worker.
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from model_training.rankers import fit_retrieval
from services.api.adapters.active_adapters import LiveAdapters
from services.api.dependencies import Dependencies
from services.api.http.auth import AccessRules
from services.api.limits import Limits
from services.api.main import Background, create_app
from services.api.main import serve as serve_app
from services.api.recommend.ordering_reload import PublishedOrdering
from services.batch import publish as publish_step
from services.core.artifacts import Artifact
from services.core.data_folder.text_writers import TextWriters
from services.core.errors import InputError
from services.core.images import ImageForm
from services.deployment.settings import Settings
from services.deployment.text_origin import texts_to_keep
from services.engines.adapter_folders import AdapterFolders
from services.engines.checkpoints import identify, is_merged
from services.engines.contract import AS_SERVED, Engine, EngineIdentity
from services.engines.instrumented import EngineMetrics, instrumented
from services.engines.open_engine import find_engine, open_engine
from services.fetch.rules import FetchRules
from services.process.announce import announce, is_loopback
from services.process.signals import set_by_signals
from services.state.adapter_selection import AdapterSelections
from services.state.embedded_redis.server import EmbeddedRedis
from services.state.user_store import Store
from services.telemetry import tracing
from services.telemetry.registry import new_registry
from services.worker.health_server import listening
from services.worker.main import Worker
from services.worker.metrics import WorkerMetrics

log = structlog.get_logger(__name__)

# Trained by `msr demo-model` and shipped, so that everything runs without a hub.
DEMO_WEIGHTS = Path(__file__).parents[2] / "model_training" / "demo" / "weights"


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Which engine, model and adapter a command uses; the settings name the servers."""

    kind: str  # a key of `open_engine.ENGINES`
    model: str
    adapter: str | None
    settings: Settings
    # Whether the engine only writes preferences, so that its model may be a text-only one.
    texts_only: bool = False

    @property
    def on_servers(self) -> bool:
        """Whether servers hold the weights, and not this process."""
        return find_engine(self.kind).on_servers

    def for_preferences(self) -> "EngineChoice":
        """What writes the preferences: this engine, or the writer that the settings name.

        InputError for a writer that has no place to run.
        """
        writer, urls = self.settings.writer, self.settings.writer_urls
        if not writer and not urls:
            return self
        if not urls and self.on_servers:
            raise InputError(
                f"MSR_WRITER names {writer!r}, but with --engine {self.kind} models run on "
                "servers; name the writer's servers in MSR_WRITER_URLS"
            )
        served = {"vllm_urls": urls, "recommender": None, "recommender_urls": ()}
        settings = self.settings.model_copy(update=served)
        kind = "vllm" if urls else self.kind
        return EngineChoice(kind, writer or AS_SERVED, None, settings, texts_only=True)

    async def open(self, *, for_batch: bool = False) -> Engine:
        """Load or connect. Raises what `open_engine` raises.

        Online an unavailable server is an error at once; the prompts of an offline step wait
        while a server restarts.
        """
        return await self.opener(for_batch=for_batch)()

    async def identify(self, *, for_batch: bool = True) -> EngineIdentity:
        """The identity of the weights; those in folders are not loaded for it. See `open`."""
        if not self.on_servers:
            return await asyncio.to_thread(identify, self.model, self.adapter)
        engine = await self.open(for_batch=for_batch)
        try:
            return engine.identity
        finally:
            await engine.close()

    def opener(self, *, for_batch: bool) -> Callable[[], Awaitable[Engine]]:
        """`open` as a value that can be pickled for another process."""
        return functools.partial(
            open_engine,
            self.kind,
            model=_absolute(self.model),
            adapter=self.adapter and _absolute(self.adapter),
            urls=self.settings.vllm_urls,
            recommender=self.settings.recommender,
            recommender_urls=self.settings.recommender_urls,
            texts_only=self.texts_only,
            timeout_seconds=self.settings.engine_timeout_seconds,
            patience_seconds=self.settings.engine_patience_seconds if for_batch else 0.0,
        )


def _absolute(model: str) -> str:
    """A folder's absolute path, because another process may have another working directory."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def choose_engine(
    data: str, settings: Settings, *, kind: str, model: str | None, adapter: str | None
) -> EngineChoice:
    """Fill in defaults for the options that were not given.

    Model: the shipped demo model. Adapter: the one that `msr train` wrote into the data folder, or
    the shipped one for the demo model; none for a merged checkpoint. With vLLM servers: the model
    and the adapter that they serve. The adapter `none` means the base model alone.
    """
    demo_base = str(DEMO_WEIGHTS / "base")
    on_servers = find_engine(kind).on_servers
    if not on_servers and settings.recommender_urls:
        raise InputError(
            "MSR_RECOMMENDER_URLS names vLLM servers: choose --engine vllm, or unset it"
        )
    if on_servers:
        model, adapter = model or AS_SERVED, adapter or AS_SERVED
    model = model or demo_base
    if adapter is None and not is_merged(model):
        trained = Path(data) / "adapter"
        if (trained / "manifest.json").exists():
            adapter = str(trained)
        elif model == demo_base:
            adapter = str(DEMO_WEIGHTS / "adapter")
    return EngineChoice(kind, model, None if adapter == "none" else adapter, settings)


@contextlib.asynccontextmanager
async def open_store(data: str, settings: Settings) -> AsyncIterator[Store]:
    """The store at REDIS_URL or, if that is unset, on an embedded Redis that is stopped at exit."""
    async with contextlib.AsyncExitStack() as stack:
        if settings.redis_url is not None:
            url = settings.redis_url.get_secret_value()
        else:
            folder = settings.state or str(Path(data) / "state")
            url = await stack.enter_async_context(EmbeddedRedis(folder))
        store = await Store.open(url, timeout_seconds=settings.redis_timeout_seconds)
        stack.push_async_callback(store.close)
        yield store


async def publish(data: str, settings: Settings) -> dict[str, Any]:
    """Load the artifacts into Redis; returns the counts."""
    async with open_store(data, settings) as store:
        return dict(await publish_step.run(data, store))


async def serve(
    data: str,
    choice: EngineChoice,
    settings: Settings,
    *,
    host: str,
    port: int,
    with_worker: bool | None = None,
    accept_other_texts: bool = False,
    on_listening: Callable[[str], None] = announce,
    stop: asyncio.Event | None = None,
) -> None:
    """Publish the artifacts, then answer the HTTP API until stopped.

    Fits the cheap rankers first if they were not fitted to these artifacts (seconds to minutes).
    Uses weights of fusion if `msr fit-ranker` wrote some. While it runs, newly published artifacts
    and activated adapters replace those in use. A stored choice of adapter takes precedence over
    the one that it is started with.
    The worker runs in this process too if `with_worker`, or if that is None and Redis is embedded.
    Raises ArtifactMismatch if another model wrote the texts, unless `accept_other_texts`: then they
    are served, marked, and the worker writes them anew.
    """
    if not settings.require_keys:
        warn_if_exposed(host)
    fit_retrieval.ensure(data)
    embedded = settings.redis_url is None
    has_worker = embedded if with_worker is None else with_worker
    async with (
        _observed("msr-api", choice, settings, writes=has_worker) as models,
        open_store(data, settings) as store,
    ):
        engine, own = models.engine, models.text_writers(settings)
        adapters = _live_adapters(data, choice, settings, engine, store)
        await adapters.look()
        keep = await texts_to_keep(data, store, own, accept=accept_other_texts)
        # Before anything is published, so that a ranker that does not fit fails the start.
        source = PublishedOrdering(data, engine.identity, any_adapter=lambda: adapters.is_chosen)
        ordering = source.load()
        counts = await publish_step.run(data, store, keep_rewritten=keep)
        log.info("artifacts_published", **counts)
        deps = Dependencies(
            store=store,
            engine=engine,
            ordering=ordering,
            adapters=adapters,
            source=source,
            limits=_limits(data, settings),
            rules=_access_rules(settings),
            registry=models.registry,
            data=data,
            writers=own,
            accepts_other_texts=accept_other_texts,
        )
        background: Background | None = None
        if has_worker:
            background = models.worker(store, settings, accept_other_texts).run
        await serve_app(
            create_app(deps),
            host=host,
            port=port,
            background=background,
            on_listening=on_listening,
            stop=stop,
            shutdown_seconds=settings.shutdown_seconds,
        )


@dataclass(frozen=True, slots=True)
class _Models:
    """The models of a process: `engine` summarizes and scores, `writer` writes the preferences (the
    same engine, unless the settings name another; None in a process that writes none).
    """

    engine: Engine
    writer: Engine | None
    writer_identity: EngineIdentity
    registry: CollectorRegistry

    def text_writers(self, settings: Settings) -> TextWriters:
        """Who writes texts in this deployment."""
        return TextWriters.by(
            self.engine.identity, self.writer_identity, sampling=settings.sampling
        )

    def worker(self, store: Store, settings: Settings, accept_other_texts: bool) -> Worker:
        """The worker of this process."""
        return Worker(
            store,
            self.engine,
            metrics=WorkerMetrics(self.registry),
            writer=self.writer,
            accepts_other_texts=accept_other_texts,
            sampling=settings.sampling,
        )


@contextlib.asynccontextmanager
async def _observed(
    service: str, choice: EngineChoice, settings: Settings, *, writes: bool
) -> AsyncIterator[_Models]:
    """The models with traces and metrics, and the registry that collects the metrics."""
    tracing.configure(service, endpoint=settings.otlp_endpoint)
    registry = new_registry()
    metrics = EngineMetrics(registry)
    preferences = choice.for_preferences()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, tracing.close)
        engine = instrumented(await choice.open(), metrics)
        stack.push_async_callback(engine.close)
        if preferences is choice:
            yield _Models(engine, engine, engine.identity, registry)
        elif writes:
            writer = instrumented(await preferences.open(), metrics)
            stack.push_async_callback(writer.close)
            log.info("writer_opened", model=writer.identity.model, name=writer.identity.name)
            yield _Models(engine, writer, writer.identity, registry)
        else:
            yield _Models(engine, None, await preferences.identify(for_batch=False), registry)


def warn_if_exposed(host: str) -> None:
    """Log a warning if an API without keys can be reached from other machines."""
    if not is_loopback(host):
        log.warning(
            "api_open_to_everybody",
            host=host,
            remedy="set MSR_REQUIRE_KEYS=1 and make keys with `msr keys create`",
        )


async def work(
    data: str, choice: EngineChoice, settings: Settings, *, accept_other_texts: bool = False
) -> None:
    """Update preferences and summarize new items until SIGINT or SIGTERM.

    Raises ArtifactMismatch if Redis holds texts of another model, unless `accept_other_texts`: then
    they are written anew.
    """
    stop = asyncio.Event()
    with set_by_signals(stop):
        async with (
            _observed("msr-worker", choice, settings, writes=True) as models,
            open_store(data, settings) as store,
            _worker_listening(models.registry, settings),
        ):
            await models.worker(store, settings, accept_other_texts).run(stop)


def _worker_listening(
    registry: CollectorRegistry, settings: Settings
) -> contextlib.AbstractAsyncContextManager[None]:
    if settings.worker_port is None:
        return contextlib.nullcontext()
    return listening(
        registry,
        host=settings.worker_host,
        port=settings.worker_port,
        on_listening=announce,
    )


def _live_adapters(
    data: str, choice: EngineChoice, settings: Settings, engine: Engine, store: Store
) -> LiveAdapters:
    """The adapters in the folder of the settings or of the data, and the one that was chosen."""
    own = choice.adapter or ""
    is_folder = not choice.on_servers and Path(own).is_dir()
    name = Path(own).resolve().name if is_folder else own
    given = {name: own} if own and is_folder else {}
    folder = Path(settings.adapters or Path(data) / "adapters").resolve()
    return LiveAdapters(
        engine,
        AdapterSelections(store.connection),
        AdapterFolders(folder, given, model=engine.identity.model),
        own_name=name,
    )


def _limits(data: str, settings: Settings) -> Limits:
    return Limits(
        num_scored=settings.num_scored,
        timeout_seconds=settings.timeout_seconds,
        max_in_flight=settings.max_in_flight,
        reload_seconds=settings.reload_seconds,
        adapter_poll_seconds=settings.adapter_poll_seconds,
        max_backlog=settings.max_backlog,
        max_streams=settings.max_streams,
        stream_seconds=settings.stream_seconds,
        item_cache_bytes=settings.item_cache_mb * 1024 * 1024,
        image_form=ImageForm.from_definition(Artifact(data, "items").manifest().definition),
        fetch=FetchRules(
            allowed_hosts=settings.image_hosts,
            timeout_seconds=settings.image_timeout_seconds,
            max_attempts=2,  # a request waits for it
        ),
    )


def _access_rules(settings: Settings) -> AccessRules:
    return AccessRules(
        require_keys=settings.require_keys,
        open_metrics=settings.open_metrics,
        cache_seconds=settings.key_cache_seconds,
    )
