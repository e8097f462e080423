"""What a worker counts, and how it serves the counts."""

import asyncio

import httpx
import pytest
from prometheus_client import CollectorRegistry

from services.core.errors import EngineTimeout, InputError
from services.state.user_store import Store
from services.state.work_queue import WorkQueue
from services.worker.health_server import listening
from services.worker.main import Worker
from services.worker.metrics import WorkerMetrics
from tests.builders import (
    DigestEngine,
    a_history,
    an_interaction,
    an_item,
    put_items,
    some_ids,
    the_user,
    updated_by_hand,
)
from tests.worker.running import QUICK, nothing_waits, until


class Counting:
    """A worker that runs until nothing is left to do, and its counts."""

    def __init__(self, store: Store) -> None:
        self.registry = CollectorRegistry()
        self._metrics = WorkerMetrics(self.registry)
        self._store = store

    async def work(self, engine: DigestEngine) -> None:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(Worker(self._store, engine, QUICK, self._metrics).run(stop))
            await until(lambda: nothing_waits(self._store))
            stop.set()

    def count(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"msr_worker_{name}", labels)


@pytest.fixture
async def worker(store: Store) -> Counting:
    await put_items(store, [*some_ids(9), "poison"])
    return Counting(store)


async def test_an_update_counts_its_blocks_its_texts_and_its_time(store: Store, worker: Counting):
    await store.ingest(a_history(some_ids(7)))
    await worker.work(DigestEngine())

    assert worker.count("updates_total", outcome="saved") == 1
    assert worker.count("blocks_written_total") == 2
    assert worker.count("preference_seconds_count") == 3  # and the unfinished block's
    assert worker.count("update_seconds_count") == 1
    assert worker.count("update_latency_seconds_count") == 1
    assert worker.count("rebuilds_total") == 0


async def test_the_latency_of_an_update_begins_when_the_interaction_arrived(
    store: Store, worker: Counting
):
    await store.ingest([an_interaction()])
    await asyncio.sleep(0.3)
    await worker.work(DigestEngine())

    assert worker.count("update_latency_seconds_sum") >= 0.29
    assert worker.count("update_seconds_sum") < worker.count("update_latency_seconds_sum")


async def test_a_late_interaction_counts_as_a_rebuild(store: Store, worker: Counting):
    history = a_history(some_ids(7))
    for part in (history[:1] + history[2:], history[1:2]):
        await store.ingest(part)
        await worker.work(DigestEngine())

    assert worker.count("rebuilds_total") == 1
    assert worker.count("blocks_written_total") == 4


async def test_a_delivery_that_brings_nothing_new_is_a_duplicate(store: Store, worker: Counting):
    await store.ingest([an_interaction()])
    await store.save_preference(updated_by_hand(await the_user(store)))
    await worker.work(DigestEngine())

    assert worker.count("duplicates_total") == 1
    assert worker.count("updates_total", outcome="not_needed") == 1
    assert worker.count("update_latency_seconds_count") == 0


async def test_retries_and_the_dead_letter_at_their_end_are_counted(store: Store, worker: Counting):
    await store.ingest([an_interaction("poison")])
    await worker.work(DigestEngine(failing={"title of poison": ValueError("no")}))

    num_retries = QUICK.num_tries - 1
    assert worker.count("postponed_total", queue="users", reason="TryLater") == num_retries
    assert worker.count("dead_letters_total") == 1


async def test_an_engine_that_is_late_is_the_reason_of_a_retry(store: Store, worker: Counting):
    engine = DigestEngine(failing={"": EngineTimeout("late")})
    await store.ingest([an_interaction()])
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.work(engine))
        await until(lambda: asyncio.sleep(0, len(engine.prompts) > 1))
        engine.failing.clear()

    assert worker.count("postponed_total", queue="users", reason="EngineTimeout") >= 1


async def test_an_update_that_lost_to_another_save_is_a_conflict(store: Store, worker: Counting):
    engine = DigestEngine(gate=asyncio.Event())
    await store.ingest(a_history(some_ids(2)))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.work(engine))
        await engine.asked.wait()
        await store.save_preference(updated_by_hand(await the_user(store)))
        await store.ingest([an_interaction("i3", at=9)])
        engine.gate.set()

    assert worker.count("postponed_total", queue="users", reason="StateConflict") == 1


async def test_work_of_a_dead_worker_counts_as_claimed(store: Store, worker: Counting):
    killed = WorkQueue(store, consumer="killed")
    await killed.create_groups()
    await store.ingest([an_interaction()])
    await killed.read("users", count=9, block_seconds=0.01)
    await worker.work(DigestEngine())

    assert worker.count("claimed_total", queue="users") == 1


async def test_summaries_count_by_what_came_of_them(store: Store, worker: Counting):
    for item_id in ("good", "bad"):
        await store.items.put_item(an_item(item_id), summary=None)
    await worker.work(DigestEngine(failing={"title of bad": ValueError("no")}))

    assert worker.count("summaries_total", outcome="written") == 1
    assert worker.count("summaries_total", outcome="failed") == 1


# --- over HTTP -----------------------------------------------------------------------------------


async def test_a_worker_tells_its_metrics_and_that_it_lives():
    registry, urls = CollectorRegistry(), []
    WorkerMetrics(registry)
    async with (
        listening(registry, host="127.0.0.1", port=0, on_listening=urls.append),
        httpx.AsyncClient(base_url=urls[0]) as client,
    ):
        live, metrics, other = [
            await client.get(path) for path in ("/health/live", "/metrics", "/other")
        ]

    assert (live.status_code, live.json(), other.status_code) == (200, {"status": "ok"}, 404)
    assert 'msr_worker_updates_total{outcome="saved"} 0.0' in metrics.text
    assert "server" not in metrics.headers


async def test_a_port_that_is_taken_is_named_with_the_setting():
    urls: list[str] = []
    registry = CollectorRegistry()
    async with listening(registry, host="127.0.0.1", port=0, on_listening=urls.append):
        port = int(urls[0].rpartition(":")[2])
        with pytest.raises(InputError, match=f"port {port}.*MSR_WORKER_PORT"):
            async with listening(registry, host="127.0.0.1", port=port, on_listening=urls.append):
                raise AssertionError("listens twice")
