"""Back-pressure: counts the waiting updates, and refuses interactions above a bound.

Interactions may arrive faster than the model writes. Waiting updates cost memory in Redis, so above
a bound the senders keep their interactions and try again. A background task counts the updates a
few times a second, so that no request has to read 64 streams. The bound may be exceeded by what
arrives between two counts.
"""

from dataclasses import dataclass

import structlog

from services.api.monitoring.metrics import Metrics
from services.core.errors import BacklogFull, StateError
from services.state.user_store import Store
from services.state.work_queue import BacklogSize, load_backlog

log = structlog.get_logger(__name__)

_NOTHING_WAITS = BacklogSize(num_waiting=0, lag_seconds=0.0, num_dead=0)


@dataclass(eq=False, slots=True)
class Backlog:
    """The backlog as of the last count, `seen`."""

    store: Store
    metrics: Metrics
    # Counts updates: one for each user in each request.
    max_waiting: int
    seen: BacklogSize = _NOTHING_WAITS

    @property
    def is_full(self) -> bool:
        """Whether more updates wait than allowed."""
        return self.seen.num_waiting > self.max_waiting

    def require_room(self) -> None:
        """BacklogFull if more updates wait than allowed."""
        if self.is_full:
            raise BacklogFull(
                f"{self.seen.num_waiting} updates wait and {self.max_waiting} may; send the "
                "interactions again later, and start more workers if it stays so"
            )

    async def look(self) -> None:
        """Count once; while Redis cannot be asked, the last count stays."""
        was_full = self.is_full
        try:
            found = await load_backlog(self.store.connection)
        except StateError as error:  # requests report it themselves
            log.debug("backlog_unknown", error=str(error))
            return
        self.seen = found
        self.metrics.backlog_updates.set(found.num_waiting)
        self.metrics.update_lag.set(found.lag_seconds)
        self.metrics.dead_letters.set(found.num_dead)
        if self.is_full != was_full:
            log.warning(
                "backlog_is_full" if self.is_full else "backlog_has_room",
                num_waiting=found.num_waiting,
                lag_seconds=round(found.lag_seconds, 1),
            )
