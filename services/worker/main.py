"""The worker, `msr worker`: updates preferences with interactions and summarizes new items.

Any number of workers share the queues. Work is delivered at least once and has effect once:
`preference_updater.py` says how, and `queue_consumer.py` what happens to work that fails.

    await Worker(store, engine).run(stop)
"""

import asyncio
import contextlib
import os
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import structlog
from prometheus_client import CollectorRegistry

from services.core.data_folder.text_writers import UNKNOWN_ORIGIN, TextWriters
from services.core.errors import MsrError, StateUnavailable
from services.core.prompts import Sampling
from services.core.records import ItemId, UserId
from services.engines.contract import Engine
from services.state.texts.text_origins import RewriterLease
from services.state.user_store import Store
from services.state.work_queue import Delivery, GroupMissing, WorkQueue
from services.telemetry import request_context, tracing
from services.telemetry.request_context import Origin
from services.worker.item_summarizer import Summarizer
from services.worker.limits import WorkerLimits
from services.worker.metrics import WorkerMetrics
from services.worker.preference_updater import PreferenceUpdater
from services.worker.queue_consumer import QueueConsumer, sleep_unless
from services.worker.rewriter import (
    Rewriter,
    has_unknown_texts,
    refuse_other_texts,
    require_own_texts,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker; the caller opened store and engine, and closes them.

    Without `metrics` the counts are not exported. If Redis holds texts of another model, the worker
    refuses to work, or `accepts_other_texts` and writes them anew. `writer` writes the
    preferences, by default the engine; `sampling` is of them.
    """

    store: Store
    engine: Engine
    limits: WorkerLimits = field(default_factory=WorkerLimits)
    metrics: WorkerMetrics = field(default_factory=lambda: WorkerMetrics(CollectorRegistry()))
    writer: Engine | None = None
    accepts_other_texts: bool = False
    sampling: Sampling | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; finish what is in progress then, leave the rest to others.

        Raises ArtifactMismatch for texts of another model that are not accepted.
        """
        limits, metrics = self.limits, self.metrics
        # A new name for every start: entries of an earlier process are claimed, never reused.
        consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        work_queue = WorkQueue(self.store, consumer=consumer)
        writer = self.writer or self.engine
        summarizer = Summarizer(self.store, work_queue, self.engine, limits, metrics)
        updater = PreferenceUpdater(
            self.store,
            work_queue,
            writer,
            summarizer,
            limits,
            metrics,
            stop.is_set,
            self.sampling,
        )

        async def update(user_id: str, taken: Sequence[Delivery]) -> None:
            with _working_for("update", taken):
                updated = await updater.update(UserId(user_id), _num_deliveries(taken))
            if updated:
                oldest_ms = min(delivery.queued_ms for delivery in taken)
                metrics.update_latency_seconds.observe(max(0.0, time.time() - oldest_ms / 1000))
            else:
                metrics.duplicates.inc(len(taken))

        async def summarize(item_id: str, taken: Sequence[Delivery]) -> None:
            with _working_for("summary", taken):
                await summarizer.settle(ItemId(item_id), _num_deliveries(taken))

        users = QueueConsumer("users", work_queue, update, limits.num_users, limits, metrics)
        items = QueueConsumer("items", work_queue, summarize, limits.num_items, limits, metrics)

        async def keep_alive() -> None:
            while True:
                await asyncio.sleep(min(limits.lease_seconds, limits.claim_after_seconds) / 3)
                with contextlib.suppress(StateUnavailable, GroupMissing):  # the consumers log it
                    await work_queue.keep([*users.held, *items.held])
                    await work_queue.renew_leases(updater.leases, seconds=limits.lease_seconds)

        own = TextWriters.by(self.engine.identity, writer.identity, sampling=self.sampling)
        if not await self._create_groups(work_queue, stop):
            return
        if not self.accepts_other_texts:
            with contextlib.suppress(StateUnavailable):
                await require_own_texts(self.store, own)
                if await has_unknown_texts(self.store):
                    log.warning("texts_of_unknown_origin", reason=UNKNOWN_ORIGIN)
        rewriter = Rewriter(
            self.store,
            summarizer,
            updater,
            limits,
            RewriterLease(own, consumer),
            accepts_others=self.accepts_other_texts,
        )
        log.info("worker_started", consumer=consumer, model=self.engine.identity.model)
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as outer:
                heartbeat = outer.create_task(keep_alive())
                async with asyncio.TaskGroup() as consumers:
                    consumers.create_task(users.run(stop))
                    consumers.create_task(items.run(stop))
                    consumers.create_task(rewriter.run(stop))
                    if not self.accepts_other_texts:
                        consumers.create_task(refuse_other_texts(self.store, own, limits, stop))
                heartbeat.cancel()
        except* MsrError as failed:
            failure = _first(failed)  # raised here, some versions of Python put it into a group
        finally:
            await summarizer.close()
        if failure is not None:
            raise failure
        with contextlib.suppress(StateUnavailable, GroupMissing):
            await work_queue.leave()
        log.info("worker_stopped", consumer=consumer)

    async def _create_groups(self, work_queue: WorkQueue, stop: asyncio.Event) -> bool:
        num_tries = 0
        while not stop.is_set():
            try:
                await work_queue.create_groups()
            # GroupMissing: Redis was emptied meanwhile.
            except (StateUnavailable, GroupMissing) as error:
                num_tries += 1
                log.warning("state_unavailable", reason=str(error), num_tries=num_tries)
                await sleep_unless(stop, self.limits.pause_seconds(num_tries))
            else:
                return True
        return False


def _first(group: BaseExceptionGroup[MsrError]) -> BaseException:
    """The error itself: it is shown to the operator."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _num_deliveries(taken: Sequence[Delivery]) -> int:
    """The largest number of deliveries; `max_deliveries` bounds it."""
    return max(delivery.num_deliveries for delivery in taken)


@contextlib.contextmanager
def _working_for(name: str, taken: Sequence[Delivery]) -> Iterator[None]:
    """Put the work inside into the newest request's trace, linked to those of the others; its log
    lines name all requests.
    """
    oldest_first = sorted(taken, key=lambda delivery: delivery.queued_ms)
    with request_context.working_for(Origin.parse(each.origin) for each in oldest_first) as newest:
        traces = [each.traceparent for each in newest if each.traceparent]
        with tracing.span(
            name,
            kind="CONSUMER",
            parent={"traceparent": traces[-1]} if traces else {},
            linked=traces[:-1],
            deliveries=len(taken),
            request_ids=" ".join(each.request_id for each in newest),
        ):
            yield
