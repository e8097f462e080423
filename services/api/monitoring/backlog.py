"""Back-pressure: counts the waiting updates, and refuses interactions above a bound.

Interactions may arrive faster than the model writes. Waiting updates cost memory in Redis, so above
a bound the senders keep their interactions and try again. A background task counts the updates a
few times a second, so that no request has to read 64 streams. The bound may be exceeded by what
arrives between two counts.
"""

import structlog

from services.api.monitoring.metrics import Metrics
from services.core.errors import BacklogFull, StateError
from services.state.user_store import Store
from services.state.work_queue import BacklogSize, load_backlog

log = structlog.get_logger(__name__)


class Backlog:
    """The backlog as of the last count."""

    def __init__(self, store: Store, metrics: Metrics, max_waiting: int) -> None:
        """`max_waiting` counts updates: one for each user in each request."""
        self.seen = BacklogSize(num_waiting=0, lag_seconds=0.0, num_dead=0)
        self._store = store
        self._metrics = metrics
        self._max_waiting = max_waiting
        metrics.backlog_bound.set(max_waiting)

    @property
    def num_waiting(self) -> int:
        """Updates that wait or are under way."""
        return self.seen.num_waiting

    def require_room(self) -> None:
        """BacklogFull if more updates wait than allowed."""
        if self.num_waiting > self._max_waiting:
            raise BacklogFull(
                f"{self.num_waiting} updates wait and {self._max_waiting} may; send the "
                "interactions again later, and start more workers if it stays so"
            )

    async def look(self) -> None:
        """Count once; while Redis cannot be asked, the last count stays."""
        was_full = self.num_waiting > self._max_waiting
        try:
            found = await load_backlog(self._store.connection)
        except StateError as error:  # requests report it themselves
            log.debug("backlog_unknown", error=str(error))
            return
        self.seen = found
        self._metrics.backlog_updates.set(found.num_waiting)
        self._metrics.update_lag.set(found.lag_seconds)
        self._metrics.dead_letters.set(found.num_dead)
        if (found.num_waiting > self._max_waiting) != was_full:
            log.warning(
                "backlog_is_full" if not was_full else "backlog_has_room",
                num_waiting=found.num_waiting,
                lag_seconds=round(found.lag_seconds, 1),
            )
