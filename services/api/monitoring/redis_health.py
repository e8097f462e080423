"""Reads Redis's memory, connections and persistence every few seconds, as metrics.

Requests notice a failure themselves; these metrics warn operators before one.
"""

import time
from dataclasses import dataclass

import structlog

from services.api.monitoring.metrics import Metrics
from services.core.errors import StateError
from services.state.server_info import load_server
from services.state.user_store import Store

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class RedisWatch:
    """Polls the INFO of Redis."""

    store: Store
    metrics: Metrics
    was_up: bool = True

    async def look(self) -> None:
        """Poll once."""
        metrics = self.metrics
        started = time.perf_counter()
        try:
            server = await load_server(self.store.connection)
        except StateError as error:
            metrics.redis_up.set(0)
            if self.was_up:
                log.error("redis_unavailable", reason=str(error))  # noqa: TRY400 - no traceback needed
            self.was_up = False
            return
        if not self.was_up:
            log.info("redis_recovered")
        self.was_up = True
        metrics.redis_up.set(1)
        metrics.redis_answer_seconds.set(time.perf_counter() - started)
        metrics.redis_used_bytes.set(server.used_bytes)
        metrics.redis_max_bytes.set(server.max_bytes)
        metrics.redis_clients.set(server.num_clients)
        metrics.redis_append_only.set(server.appends)
        metrics.redis_writes_to_disk.set(server.writes_to_disk)
