"""Updates one user's preference to the current history.

The whole ordered history goes through `recurrence.rebuild`, which keeps the blocks that have not
changed. So an interaction that arrives late rewrites its own block and those after it, and any
order of arrival ends in the same state. The save is a compare-and-set: if two workers update one
user, only one has effect, and a user who was forgotten meanwhile stays forgotten.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from services.core.data_folder.text_writers import preference_writer
from services.core.errors import EngineRefused, StateUnavailable
from services.core.prompts import (
    HistoryItem,
    Sampling,
    preference_limits,
    preference_messages,
)
from services.core.records import ItemId, UserId
from services.core.recurrence import (
    BLOCK_SIZE,
    PreferenceState,
    count_equal_leading,
    current_preference,
    rebuild,
)
from services.engines.contract import Engine
from services.state.records import UpdatedPreference, UserRecord
from services.state.user_store import Store
from services.state.work_queue import WorkQueue
from services.worker.item_summarizer import Summarizer
from services.worker.limits import WorkerLimits
from services.worker.metrics import WorkerMetrics
from services.worker.queue_consumer import TRANSIENT_ERRORS, GaveUp, TryLater

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class PreferenceUpdater:
    """Updates the preferences of users, one worker a user at a time.

    The caller opened store and engine, and closes them. A long update stops between two saves if
    `is_stopping()`.
    """

    store: Store
    work_queue: WorkQueue
    engine: Engine
    summarizer: Summarizer
    limits: WorkerLimits
    metrics: WorkerMetrics
    is_stopping: Callable[[], bool]
    sampling: Sampling | None = None
    leases: dict[UserId, str] = field(default_factory=dict, init=False)

    @property
    def writer(self) -> str:
        """Who writes the texts: another's are written again, and those of other summaries."""
        model, summaries = self.engine.identity.model, self.summarizer.engine.identity.model
        return preference_writer(model, sampling=self.sampling, summaries=summaries).identity

    async def update(self, user_id: UserId, num_deliveries: int = 1) -> bool:
        """Return when the preference covers the history as of now; False if it did already.

        Raises GaveUp after `num_tries` failures in a row, TryLater after fewer or while another
        worker updates this user, and the engine's and the store's own errors while they are
        unavailable.
        """
        if num_deliveries > self.limits.max_deliveries:
            raise GaveUp(
                f"delivered {num_deliveries} times without being finished; it may crash its workers"
            )
        token = secrets.token_hex(8)
        if not await self.work_queue.acquire_lease(
            user_id, token, seconds=self.limits.lease_seconds
        ):
            raise TryLater("another worker updates this user")
        self.leases[user_id] = token
        try:
            return await self._update(user_id)
        except TRANSIENT_ERRORS:
            raise
        except Exception as error:
            num_failures = await self.work_queue.count_user_failure(user_id)
            reason = f"{type(error).__name__}: {error}"
            if num_failures < self.limits.num_tries:
                raise TryLater(f"update failed {num_failures} time(s): {reason}") from error
            log.error("update_given_up", user_id=user_id, num_tries=num_failures, reason=reason)  # noqa: TRY400 - the reason goes into the dead letter
            raise GaveUp(reason) from error
        finally:
            del self.leases[user_id]
            with contextlib.suppress(StateUnavailable):  # then it expires
                await self.work_queue.release_lease(user_id, token)

    async def _update(self, user_id: UserId) -> bool:
        record = await self.store.load_user(user_id)
        if record is None or self._is_covered(record):
            # An earlier update covers it. The line names the requests that it came with.
            log.info("update_not_needed", user_id=user_id)
            self.metrics.updates.labels("not_needed").inc()
            return False
        started = time.perf_counter()
        item_ids = record.item_ids
        state = self._usable_state(record)
        num_written = 0

        async def write(previous: str, block: Sequence[ItemId]) -> str:
            nonlocal num_written
            items = await self._describe(block)
            if not items:  # every item of the block was deleted since
                return previous
            num_written += 1
            messages = preference_messages(previous, items)
            limits = preference_limits(
                self.sampling, user_id=user_id, previous=previous, item_ids=block
            )
            with self.metrics.preference_seconds.time():
                text = await self.engine.generate(messages, limits)
            if not text:
                raise EngineRefused("the model wrote an empty preference")
            return text

        stride = self.limits.blocks_between_saves * BLOCK_SIZE
        for end in range(stride, len(item_ids), stride):
            reached = await rebuild(state, item_ids[:end], write=write)
            if reached.blocks == state.blocks[: len(reached.blocks)]:
                continue
            state = reached
            progress = UpdatedPreference(
                record,
                state,
                record.preference,
                record.preference_version,
                self.writer,
                record.text_writer,
            )
            record = await self._save(progress)
            if self.is_stopping():
                raise TryLater("the worker stops; the blocks written so far are saved")
        state = await rebuild(state, item_ids, write=write)
        preference = await current_preference(state, write=write)
        await self._save(UpdatedPreference(record, state, preference, record.version, self.writer))
        seconds = time.perf_counter() - started
        self.metrics.updates.labels("saved").inc()
        self.metrics.update_seconds.observe(seconds)
        log.info(
            "preference_updated",
            user_id=user_id,
            version=record.version,
            num_blocks=len(state.blocks) + record.num_dropped_blocks,
            num_written=num_written,
            duration_seconds=round(seconds, 3),
        )
        return True

    async def _save(self, update: UpdatedPreference) -> UserRecord:
        """Save, and count the new blocks."""
        saved = await self.store.save_preference(update)
        before, now = update.record.state.blocks, update.state.blocks
        num_kept = count_equal_leading(before, now)
        self.metrics.blocks_written.inc(len(now) - num_kept)
        if num_kept < len(before):
            self.metrics.rebuilds.inc()
        return saved

    def _is_covered(self, record: UserRecord) -> bool:
        """Whether the preference covers the history, in texts of this writer."""
        is_own = not record.has_texts_of_others(self.writer)
        return is_own and record.preference_version >= record.version

    def _usable_state(self, record: UserRecord) -> PreferenceState[ItemId]:
        if record.writer in ("", self.writer):
            return record.state
        log.info("preference_rewritten", user_id=record.user_id, was=record.writer)
        # The first block of a capped history cannot be rewritten: the interactions before are gone.
        num_fixed = 1 if record.num_dropped_blocks else 0
        return PreferenceState(record.state.blocks[:num_fixed])

    async def _describe(self, block: Sequence[ItemId]) -> list[HistoryItem]:
        """What the prompt contains about a block's items; deleted ones are left out.

        Waits for the summary of an item that has none yet, or one of another writer.
        """
        while True:
            records = await self.store.items.load_items(block, images=False)
            due = [item_id for item_id, each in records.items() if self.summarizer.is_due(each)]
            if not due:
                return [records[i].in_history for i in block if i in records]
            for item_id in due:
                await self.summarizer.settle(item_id)
