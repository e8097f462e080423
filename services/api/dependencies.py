"""What the routes of one application share; the framework passes it, nothing is global.

It is assembled here from what the caller opened.
"""

import asyncio
from typing import Annotated, cast

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from services.api.adapters.active_adapters import LiveAdapters
from services.api.adapters.experiment_outcomes import Outcomes
from services.api.browse.search import Directory
from services.api.browse.thumbnails import Covers
from services.api.http.auth import Access, AccessRules
from services.api.http.event_streams import Streams
from services.api.limits import Limits
from services.api.monitoring.backlog import Backlog
from services.api.monitoring.engine_health import EngineWatch
from services.api.monitoring.metrics import Metrics
from services.api.monitoring.redis_health import RedisWatch
from services.api.monitoring.text_caveats import TextCaveats
from services.api.monitoring.texts_watch import TextsWatch
from services.api.recommend.cascade import Cascade
from services.api.recommend.item_cache import ItemCache
from services.api.recommend.model_scoring import CandidateScorer
from services.api.recommend.ordering import Ordering
from services.api.recommend.ordering_reload import LiveOrdering, PublishedOrdering
from services.api.recommend.shadow_scoring import ShadowScorer
from services.core.data_folder.text_writers import TextWriters
from services.engines.contract import Engine, Replicated
from services.engines.instrumented import unwrapped
from services.fetch.download import CheckedClient
from services.state.api_keys import ApiKeys
from services.state.exposures import ExposureLog
from services.state.key_scan import KeyScan
from services.state.texts.published_texts import PublishedTexts
from services.state.user_store import Store
from services.telemetry.registry import new_registry


class Dependencies:
    """What the application holds for its routes."""

    def __init__(
        self,
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
        writers: TextWriters | None = None,
        accepts_other_texts: bool = False,
    ) -> None:
        """The caller opened store and engine, and will close them.

        `adapters` are those of the engine. With a `source` the ordering follows what is published
        there. Without `rules` no route needs an API key. GET /metrics shows all of `registry`, and
        GET /progress the offline steps in the data folder `data`. `writers` write texts in this
        deployment; by default the engine's base model. `accepts_other_texts`: the server
        was started although another model wrote them.
        """
        limits, metrics = limits or Limits(), Metrics(registry or new_registry())
        items = ItemCache(
            store.items.load_items, limits.item_cache_bytes, metrics.note_item_lookups
        )
        self.store = store
        self.engine = engine
        self.adapters = adapters
        self.limits = limits
        self.metrics = metrics
        self.data = data
        self.access = Access(ApiKeys(store.connection), rules or AccessRules(), metrics)
        self.fetch_client = CheckedClient(limits.fetch)
        self.image_slots = asyncio.Semaphore(limits.max_images_at_once)
        self.key_scan = KeyScan(store.connection)
        self.directory = Directory(self.key_scan)
        self.covers = Covers(
            store.items.load_cover,
            items,
            limits.cover_cache_bytes,
            max_at_once=limits.max_images_at_once,
        )
        self.streams = Streams(store, limits, metrics)
        self.backlog = Backlog(store, metrics, limits.max_backlog)
        self.redis_watch = RedisWatch(store, metrics)
        watch = TextsWatch(PublishedTexts(store.connection), metrics, data)
        self.writers = writers or TextWriters.of(engine.identity.model, engine.identity.name)
        self.caveats = TextCaveats(
            store,
            watch,
            self.writers,
            engine.identity.card,
            data,
            accepts_others=accepts_other_texts,
        )
        self.engine_watch = EngineWatch(lambda: adapters.active, limits)
        scorer = CandidateScorer(store, items, self.engine_watch, metrics, limits.max_in_flight)
        self.live = LiveOrdering(ordering, metrics, source)
        self.outcomes = Outcomes(ExposureLog(store.connection), adapters, metrics)
        self.shadow = ShadowScorer(adapters, items, metrics, lambda: scorer.num_under_way > 0)
        self.cascade = Cascade(
            store, self.live, adapters, scorer, self.shadow, self.caveats, limits, metrics
        )

        metrics.backlog_bound.set(limits.max_backlog)
        metrics.redis_unavailable.set_function(lambda: store.connection.health.is_unavailable)
        metrics.adapter_sync_failed.set_function(lambda: bool(adapters.problem))
        metrics.item_cache_bytes.set_function(lambda: items.num_bytes)
        metrics.prompts_under_way.set_function(lambda: scorer.num_under_way)
        metrics.streams_open.set_function(lambda: self.streams.num_open)
        behind = unwrapped(engine)
        if isinstance(behind, Replicated):
            metrics.watch_replicas(behind)


def _dependencies(request: Request) -> Dependencies:
    return cast(Dependencies, request.app.state.deps)


AppDependencies = Annotated[Dependencies, Depends(_dependencies)]
