"""Puts the parts of a deployment together: settings, engine, Redis, API and worker.

The commands of `cli.py` and the demo come here; nothing else knows both the API and the worker.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from model_training import fit_retrieval
from services.api.limits import Limits
from services.api.main import Background, create_app
from services.api.main import serve as serve_app
from services.batch import publish as publish_step
from services.core.artifacts import Artifact
from services.engines.contract import Engine
from services.engines.opening import EngineKind, open_engine
from services.fetch.rules import FetchRules
from services.retrieval.rankers import CheapRankers
from services.settings import Settings
from services.state.embedded import EmbeddedRedis
from services.state.store import Store
from services.worker.main import Worker

log = structlog.get_logger(__name__)

# What `msr serve` prints on stdout, before its base URL, once it answers.
LISTENING = "listening on "

# Trained by `msr demo-model` and shipped, so that everything runs without a hub.
DEMO_WEIGHTS = Path(__file__).parent.parent / "model_training" / "demo" / "weights"


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Which engine, model and adapter a command uses."""

    kind: EngineKind
    model: str
    adapter: str | None
    urls: tuple[str, ...]
    timeout_seconds: float

    async def open(self) -> Engine:
        """Load or connect; raises what `open_engine` raises."""
        return await open_engine(
            self.kind,
            model=self.model,
            adapter=self.adapter,
            urls=self.urls,
            timeout_seconds=self.timeout_seconds,
        )


def choose_engine(
    data: str, settings: Settings, *, kind: EngineKind, model: str | None, adapter: str | None
) -> EngineChoice:
    """Fill in what was not named.

    The model: the shipped demo model. The adapter: the one `msr train` left in the data folder, or
    on the demo model the shipped one; the name `none` asks for the base model alone.
    """
    demo_base = str(DEMO_WEIGHTS / "base")
    model = model or demo_base
    if adapter is None and kind == "local":
        trained = Path(data) / "adapter"
        if (trained / "manifest.json").exists():
            adapter = str(trained)
        elif model == demo_base:
            adapter = str(DEMO_WEIGHTS / "adapter")
    return EngineChoice(
        kind=kind,
        model=model,
        adapter=None if adapter == "none" else adapter,
        urls=settings.vllm_urls,
        timeout_seconds=settings.engine_timeout_seconds,
    )


@contextlib.asynccontextmanager
async def open_store(data: str, settings: Settings) -> AsyncIterator[Store]:
    """The store at REDIS_URL or, when that is unset, on an embedded Redis that is stopped after."""
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
    """Load the artifacts into Redis; the counts."""
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
    on_listening: Callable[[str], None] = lambda url: print(f"{LISTENING}{url}", flush=True),
    stop: asyncio.Event | None = None,
) -> None:
    """Publish the artifacts, then answer the HTTP API until stopped.

    Cheap rankers that have not been fitted to these artifacts are fitted first: it takes seconds.
    The worker runs in this process too if asked for, or if Redis is embedded and nothing was said.
    """
    fit_retrieval.ensure(data)
    rankers = CheapRankers.load(data)
    engine = await choice.open()
    try:
        async with open_store(data, settings) as store:
            counts = await publish_step.run(data, store)
            log.info("artifacts_published", **counts)
            app = create_app(
                store=store, engine=engine, rankers=rankers, limits=_limits(data, settings)
            )
            embedded = settings.redis_url is None
            background: list[Background] = []
            if with_worker or (with_worker is None and embedded):
                background.append(Worker(store, engine).run)
            await serve_app(
                app,
                host=host,
                port=port,
                background=background,
                on_listening=on_listening,
                stop=stop,
                shutdown_seconds=settings.shutdown_seconds,
            )
    finally:
        await engine.close()


async def work(data: str, choice: EngineChoice, settings: Settings) -> None:
    """Fold interactions and summarize new items until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    engine = await choice.open()
    try:
        async with open_store(data, settings) as store:
            await Worker(store, engine).run(stop)
    finally:
        await engine.close()


def _limits(data: str, settings: Settings) -> Limits:
    return Limits(
        num_scored=settings.num_scored,
        timeout_seconds=settings.timeout_seconds,
        max_in_flight=settings.max_in_flight,
        item_cache_bytes=settings.item_cache_mb * 1024 * 1024,
        image_size=int(Artifact(data, "items").manifest().definition["image_size"]),
        fetch=FetchRules(
            allowed_hosts=settings.image_hosts,
            timeout_seconds=settings.image_timeout_seconds,
            max_attempts=2,  # somebody waits for the answer
        ),
    )
