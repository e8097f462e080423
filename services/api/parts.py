"""What the routes of one application share; handed to them by the framework, never global."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from services.api.access import Access
from services.api.backlog import Backlog
from services.api.covers import Covers
from services.api.directory import Directory
from services.api.engine_watch import EngineWatch
from services.api.limits import Limits
from services.api.live_adapters import LiveAdapters
from services.api.metrics import Metrics
from services.api.outcomes import Outcomes
from services.api.published import LiveOrdering
from services.api.ranking import Cascade
from services.api.redis_watch import RedisWatch
from services.api.shadow import ShadowScorer
from services.api.streams import Streams
from services.fetch.download import CheckedClient
from services.state.listing import Listing
from services.state.store import Store


@dataclass(frozen=True, slots=True)
class Parts:
    """The application's own parts."""

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
    listing: Listing
    directory: Directory
    covers: Covers
    streams: Streams
    # The data folder, if there is one.
    data: str | None


def _parts(request: Request) -> Parts:
    return cast(Parts, request.app.state.parts)


AppParts = Annotated[Parts, Depends(_parts)]
