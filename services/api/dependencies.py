"""What the routes of one application share; the framework passes it, nothing is global.

`Dependencies.of` assembles it from what the caller opened.
"""

import asyncio
from dataclasses import dataclass
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
from services.api.recommend.cascade import Cascade
from services.api.recommend.item_cache import ItemCache
from services.api.recommend.model_scoring import CandidateScorer
from services.api.recommend.ordering import Ordering
from services.api.recommend.ordering_reload import LiveOrdering, PublishedOrdering
from services.api.recommend.shadow_scoring import ShadowScorer
from services.engines.contract import Engine, Replicated
from services.engines.instrumented import unwrapped
from services.fetch.download import CheckedClient
from services.state.api_keys import ApiKeys
from services.state.exposures import ExposureLog
from services.state.key_scan import KeyScan
from services.state.user_store import Store
from services.telemetry.registry import new_registry


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the application holds for its routes."""

    store: Store
    adapters: LiveAdapters
    shadow: ShadowScorer
    outcomes: Outcomes
    live: LiveOrdering
    limits: Limits
    metrics: Metrics
    access: Access
    cascade: Cascade
    backlog: Backlog
    redis_watch: RedisWatch
    engine_watch: EngineWatch
    fetch_client: CheckedClient
    image_slots: asyncio.Semaphore
    key_scan: KeyScan
    directory: Directory
    covers: Covers
    streams: Streams
    # The data folder, if there is one.
    data: str | None

    @classmethod
    def of(
        cls,
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
    ) -> "Dependencies":
        """All of it over a store and an engine that the caller opened and will close.

        `adapters` are those of the engine. With a `source` the ordering follows what is published
        there. Without `rules` no route needs an API key. GET /metrics shows all of `registry`, and
        GET /progress the offline steps in the data folder `data`.
        """
        limits, rules = limits or Limits(), rules or AccessRules()
        metrics = Metrics(registry or new_registry())
        metrics.backlog_bound.set(limits.max_backlog)
        metrics.redis_unavailable.set_function(lambda: store.connection.health.is_unavailable)
        behind = unwrapped(engine)
        if isinstance(behind, Replicated):
            metrics.watch_replicas(behind)
        metrics.adapter_sync_failed.set_function(lambda: bool(adapters.problem))
        items = ItemCache(
            store.items.load_items, limits.item_cache_bytes, metrics.note_item_lookups
        )
        metrics.item_cache_bytes.set_function(lambda: items.num_bytes)
        watch = EngineWatch(lambda: adapters.active, limits)
        scorer = CandidateScorer(store, items, watch, metrics, limits.max_in_flight)
        metrics.prompts_under_way.set_function(lambda: scorer.num_under_way)
        live = LiveOrdering(ordering, metrics, source)
        shadow = ShadowScorer(adapters, items, metrics, is_busy=lambda: scorer.num_under_way > 0)
        streams = Streams(store, limits, metrics)
        metrics.streams_open.set_function(lambda: streams.num_open)
        key_scan = KeyScan(store.connection)
        return cls(
            store=store,
            adapters=adapters,
            shadow=shadow,
            outcomes=Outcomes(ExposureLog(store.connection), adapters, metrics),
            live=live,
            limits=limits,
            metrics=metrics,
            access=Access(ApiKeys(store.connection), rules, metrics),
            cascade=Cascade(store, live, adapters, scorer, shadow, limits, metrics),
            backlog=Backlog(store, metrics, limits.max_backlog),
            redis_watch=RedisWatch(store, metrics),
            engine_watch=watch,
            fetch_client=CheckedClient(limits.fetch),
            image_slots=asyncio.Semaphore(limits.max_images_at_once),
            key_scan=key_scan,
            directory=Directory(key_scan),
            covers=Covers(items, limits.cover_cache_bytes, max_at_once=limits.max_images_at_once),
            streams=streams,
            data=data,
        )


def _dependencies(request: Request) -> Dependencies:
    return cast(Dependencies, request.app.state.deps)


AppDependencies = Annotated[Dependencies, Depends(_dependencies)]
