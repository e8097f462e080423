"""Takes entries from one queue, merges them by subject, handles them, and acknowledges them.

A subject (a user or an item) has at most one task here; entries that arrive for it meanwhile are
merged into the task's next run. Only finished work is acknowledged, so the entries of a killed
worker are delivered to another.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import structlog

from services.core.errors import (
    EngineOverloaded,
    EngineTimeout,
    EngineUnavailable,
    MsrError,
    StateConflict,
    StateUnavailable,
)
from services.state.work_queue import Delivery, GroupMissing, Queue, WorkQueue
from services.worker.limits import WorkerLimits
from services.worker.metrics import WorkerMetrics

log = structlog.get_logger(__name__)

# Entries read from each partition at a time: few, so that other workers get some too.
ENTRIES_A_READ = 2
ENTRIES_A_CLAIM = 8


class TryLater(MsrError):
    """Cannot be done now; it is tried again and does not count as a failure of its subject."""


class GaveUp(MsrError):
    """A subject failed too often; its deliveries become dead letters."""


TRANSIENT_ERRORS = (
    TryLater,
    EngineUnavailable,
    EngineOverloaded,
    EngineTimeout,
    StateUnavailable,
    StateConflict,
    GroupMissing,
)

# handle(subject, its deliveries)
Handle = Callable[[str, Sequence[Delivery]], Awaitable[None]]


class QueueConsumer:
    """Handles the entries of one queue, `num_at_once` subjects at a time."""

    def __init__(
        self,
        queue: Queue,
        work_queue: WorkQueue,
        handle: Handle,
        num_at_once: int,
        limits: WorkerLimits,
        metrics: WorkerMetrics,
    ) -> None:
        """`handle` must cover everything that was stored about the subject when it began."""
        self._queue = queue
        self._work_queue = work_queue
        self._handle = handle
        self._limits = limits
        self._claimed = metrics.claimed.labels(queue)
        self._dead_letters = metrics.dead_letters
        self._postponed = {
            reason: metrics.postponed.labels(queue, reason.__name__)
            for reason in (*TRANSIENT_ERRORS, Exception)
        }
        self._slots = asyncio.Semaphore(num_at_once)
        self._most_held = 2 * num_at_once
        self._held: dict[str, dict[str, Delivery]] = {}
        self._room = asyncio.Event()

    @property
    def held(self) -> list[Delivery]:
        """Every delivery that this worker holds, handled now or waiting."""
        return [delivery for held in self._held.values() for delivery in held.values()]

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; then finish what is being handled and leave the rest to others."""
        async with asyncio.TaskGroup() as tasks:

            def dispatch(deliveries: Sequence[Delivery]) -> None:
                for delivery in deliveries:
                    held = self._held.get(delivery.subject)
                    if held is None:
                        self._held[delivery.subject] = {delivery.entry_id: delivery}
                        tasks.create_task(self._serve(delivery.subject, stop))
                    else:
                        held[delivery.entry_id] = delivery

            tasks.create_task(self._take_new(stop, dispatch))
            tasks.create_task(self._take_abandoned(stop, dispatch))

    # --- taking ----------------------------------------------------------------------------------

    async def _take_new(
        self, stop: asyncio.Event, dispatch: Callable[[Sequence[Delivery]], None]
    ) -> None:
        async def read() -> list[Delivery]:
            return await self._work_queue.read(
                self._queue, count=ENTRIES_A_READ, block_seconds=self._limits.block_seconds
            )

        while not stop.is_set():
            if len(self._held) >= self._most_held:
                self._room.clear()
                await self._room.wait()
            else:
                dispatch(await self._patiently(read, stop))

    async def _take_abandoned(
        self, stop: asyncio.Event, dispatch: Callable[[Sequence[Delivery]], None]
    ) -> None:
        async def claim() -> list[Delivery]:
            return await self._work_queue.claim(
                self._queue,
                idle_seconds=self._limits.claim_after_seconds,
                count=ENTRIES_A_CLAIM,
            )

        while not stop.is_set():
            if len(self._held) < self._most_held:
                claimed = await self._patiently(claim, stop)
                if claimed:
                    self._claimed.inc(len(claimed))
                    log.info("work_claimed", queue=self._queue, num_entries=len(claimed))
                dispatch(claimed)
            await sleep_unless(stop, self._limits.claim_every_seconds)

    async def _patiently(
        self, take: Callable[[], Awaitable[list[Delivery]]], stop: asyncio.Event
    ) -> list[Delivery]:
        """The result of `take`, as soon as Redis answers."""
        num_tries = 0
        while not stop.is_set():
            try:
                taken = await take()
            except (StateUnavailable, GroupMissing) as error:
                num_tries += 1
                if num_tries == 1:
                    log.warning("state_unavailable", queue=self._queue, reason=str(error))
                if isinstance(error, GroupMissing):
                    with contextlib.suppress(StateUnavailable, GroupMissing):
                        await self._work_queue.create_groups()
                await sleep_unless(stop, self._limits.pause_seconds(num_tries))
            else:
                if num_tries:
                    log.info("state_recovered", queue=self._queue, num_tries=num_tries)
                return taken
        return []

    # --- handling ---------------------------------------------------------------------------------

    async def _serve(self, subject: str, stop: asyncio.Event) -> None:
        held = self._held[subject]
        num_tries = 0
        while held and not stop.is_set():
            async with self._slots:
                if stop.is_set():
                    break
                taken = list(held.values())
                done = await self._try(subject, taken, num_tries)
            if done:
                num_tries = 0
                for delivery in taken:
                    held.pop(delivery.entry_id)
            else:
                num_tries += 1
                await sleep_unless(stop, self._limits.pause_seconds(num_tries))
        del self._held[subject]
        self._room.set()

    async def _try(self, subject: str, taken: Sequence[Delivery], num_tries: int) -> bool:
        try:
            try:
                await self._handle(subject, taken)
                await self._work_queue.acknowledge(taken)
            except GaveUp as error:
                await self._work_queue.dead_letter(taken, str(error))
                self._dead_letters.inc()
        except TRANSIENT_ERRORS as error:
            self._note_postponed(error)
            # A first postponement is normal: another worker has the lease, or saved first.
            level = log.warning if num_tries else log.info
            level("work_postponed", queue=self._queue, subject=subject, reason=str(error))
            return False
        except Exception as error:  # an unexpected error delays its own subject only
            self._note_postponed(error)
            log.exception("work_failed", queue=self._queue, subject=subject)
            return False
        return True

    def _note_postponed(self, error: Exception) -> None:
        kind = next(kind for kind in self._postponed if isinstance(error, kind))
        self._postponed[kind].inc()


async def sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    """Wait for these seconds, or until `stop`."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
