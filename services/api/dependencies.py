"""What the routes of one application share; the framework passes it, nothing is global."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from services.api.adapters.active_adapters import LiveAdapters
from services.api.adapters.experiment_outcomes import Outcomes
from services.api.browse.search import Directory
from services.api.browse.thumbnails import Covers
from services.api.http.auth import Access
from services.api.http.event_streams import Streams
from services.api.limits import Limits
from services.api.monitoring.backlog import Backlog
from services.api.monitoring.engine_health import EngineWatch
from services.api.monitoring.metrics import Metrics
from services.api.monitoring.redis_health import RedisWatch
from services.api.recommend.cascade import Cascade
from services.api.recommend.ordering_reload import LiveOrdering
from services.api.recommend.shadow_scoring import ShadowScorer
from services.fetch.download import CheckedClient
from services.state.key_scan import KeyScan
from services.state.user_store import Store


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


def _dependencies(request: Request) -> Dependencies:
    return cast(Dependencies, request.app.state.deps)


AppDependencies = Annotated[Dependencies, Depends(_dependencies)]
