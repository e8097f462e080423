"""Writes the summary of an item that has none, or records why that failed.

An item whose summary fails `num_tries` times is marked as failed, with the reason. From then on it
is described by its title alone, with an empty summary, as step 3 does with an item that step 2
quarantined.
"""

import asyncio
from dataclasses import dataclass, field

import structlog

from services.core.data_folder.text_writers import summary_writer
from services.core.prompts import SUMMARY_LIMITS, summary_messages
from services.core.records import ItemId
from services.engines.contract import Engine
from services.state.records import ItemRecord
from services.state.user_store import Store
from services.state.work_queue import WorkQueue
from services.worker.limits import WorkerLimits
from services.worker.metrics import WorkerMetrics
from services.worker.queue_consumer import TRANSIENT_ERRORS, TryLater

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class Summarizer:
    """Summarizes items, each at most once at a time in this process.

    The caller opened store and engine, and closes them.
    """

    store: Store
    work_queue: WorkQueue
    engine: Engine
    limits: WorkerLimits
    metrics: WorkerMetrics
    # Whether texts of nobody knows whom are written anew too.
    rewrites_unknown: bool = False
    running: dict[ItemId, asyncio.Task[None]] = field(default_factory=dict, init=False)

    @property
    def writer(self) -> str:
        """Who writes the summaries: another's are written anew before they are used."""
        return summary_writer(self.engine.identity.model).identity

    def is_due(self, record: ItemRecord) -> bool:
        """Whether the item waits for its summary, or has one of another writer."""
        if record.status == "pending":
            return True
        return record.writer != self.writer if record.writer else self.rewrites_unknown

    async def settle(self, item_id: ItemId, num_deliveries: int = 1) -> None:
        """Return when the item is ready, failed or deleted.

        Raises TryLater after a failure with tries left, and the engine's and the store's own errors
        while they are unavailable.
        """
        task = self.running.get(item_id)
        if task is None:
            task = asyncio.create_task(self._settle(item_id, num_deliveries))
            self.running[item_id] = task
            task.add_done_callback(lambda done: self._forget(item_id, done))
        # Shielded: one cancelled caller must not cancel the summary for the others.
        await asyncio.shield(task)

    async def close(self) -> None:
        """Cancel the running summaries."""
        running = list(self.running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _forget(self, item_id: ItemId, done: asyncio.Task[None]) -> None:
        del self.running[item_id]
        if not done.cancelled():
            done.exception()  # mark as retrieved, in case no caller waits any more

    async def _settle(self, item_id: ItemId, num_deliveries: int) -> None:
        record = (await self.store.items.load_items([item_id])).get(item_id)
        if record is None or not self.is_due(record):
            return
        if num_deliveries > self.limits.max_deliveries:
            await self._fail(record, f"delivered {num_deliveries} times without being finished")
            return
        await self._summarize(record)

    async def _summarize(self, record: ItemRecord) -> None:
        item_id = record.item.item_id
        try:
            summary = await self.engine.generate(summary_messages(record.item), SUMMARY_LIMITS)
        except TRANSIENT_ERRORS:
            raise
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        else:
            if summary:
                await self.store.items.save_summary(
                    item_id, record.version, summary, writer=self.writer
                )
                self.metrics.summaries.labels("written").inc()
                log.info("item_summarized", item_id=item_id, version=record.version)
                return
            failure = "the model wrote an empty summary"
        num_failures = await self.work_queue.count_item_failure(item_id)
        if num_failures < self.limits.num_tries:
            raise TryLater(f"summary of item {item_id!r} failed {num_failures} time(s): {failure}")
        await self._fail(record, failure)

    async def _fail(self, record: ItemRecord, reason: str) -> None:
        item_id = record.item.item_id
        await self.store.items.fail_item(item_id, record.version, reason, writer=self.writer)
        self.metrics.summaries.labels("failed").inc()
        log.error("item_summary_failed", item_id=item_id, version=record.version, reason=reason)
