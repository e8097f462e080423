"""How many interactions a second does the API take in?

    msr bench ingest [--seconds 20] [--concurrency 2]

POST /interactions in batches of 100 new interactions to `msr serve --no-worker`, a process on a
Redis of its own that syncs every write before it answers it. The client shares the machine's cores
with both. The users of a batch differ, as those of a busy shop do: 10,000 users, drawn evenly.
No preference is updated meanwhile, since what a model writes in a second is another question.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import httpx

from benchmarks.faults.deliveries import as_json
from benchmarks.faults.supervised_process import api, ended_after, free_port, redis_server
from benchmarks.faults.world import ITEM_IDS, prepare
from benchmarks.support.runner import markdown
from benchmarks.support.synthetic_catalogue import FIRST_TIMESTAMP_MS
from services.core.ids import derive_event_id
from services.core.records import Interaction, UserId

BATCH_SIZE = 100
NUM_USERS = 10_000
WARM_UP_SECONDS = 2.0
BAR_PER_SECOND = 3_000
BAR_P99_MS = 100
QUICK = ("--seconds", "2")


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Interactions taken in a second, and the percentiles of a batch's latency."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = await prepare(folder)
        port = free_port()
        redis = redis_server(folder, port)
        # Without a worker the updates of the whole run wait, and none may be refused for that.
        server = api(data, f"redis://127.0.0.1:{port}/0", folder, MSR_MAX_BACKLOG="1000000000")
        with ended_after([redis, server]):
            await redis.start()
            await server.start()
            async with httpx.AsyncClient(base_url=server.said, timeout=30) as http:
                await _send(http, options.concurrency, WARM_UP_SECONDS, Random("warm"))
                started = time.perf_counter()
                latencies = await _send(http, options.concurrency, options.seconds, Random("timed"))
                elapsed = time.perf_counter() - started
            await server.stop()
    percentiles = statistics.quantiles(latencies, n=100)
    return {
        "interactions_per_second": round(BATCH_SIZE * len(latencies) / elapsed),
        "p50_ms": round(1000 * percentiles[49], 1),
        "p99_ms": round(1000 * percentiles[98], 1),
        "batches": len(latencies),
        "concurrency": options.concurrency,
        "seconds": round(elapsed, 1),
        # Runnable processes of the whole machine, this benchmark's own included.
        "load": round(os.getloadavg()[0], 1),
    }


async def _send(
    http: httpx.AsyncClient, concurrency: int, seconds: float, draw: Random
) -> list[float]:
    """Seconds of every batch, `concurrency` of them always under way."""
    latencies = []
    end = time.perf_counter() + seconds

    async def send_in_turn() -> None:
        while time.perf_counter() < end:
            body = as_json([_draw_interaction(draw) for _ in range(BATCH_SIZE)])
            started = time.perf_counter()
            response = await http.post("/interactions", json=body)
            latencies.append(time.perf_counter() - started)
            if response.status_code != 202 or response.json()["accepted"] != BATCH_SIZE:
                raise RuntimeError(f"not all were accepted: {response.text[:500]}")

    await asyncio.gather(*(send_in_turn() for _ in range(concurrency)))
    return latencies


def _draw_interaction(draw: Random) -> Interaction:
    user_id = UserId(f"user-{draw.randrange(NUM_USERS)}")
    item_id = draw.choice(ITEM_IDS)
    timestamp_ms = FIRST_TIMESTAMP_MS + draw.randrange(10**10)
    return Interaction(
        user_id, item_id, timestamp_ms, derive_event_id(user_id, item_id, timestamp_ms)
    )


def table(figures: dict[str, Any]) -> str:
    """One row."""
    header = ("interactions/s", "p50 ms", "p99 ms", "requests in flight", "load", "bar", "reached")
    reached = (
        figures["interactions_per_second"] >= BAR_PER_SECOND and figures["p99_ms"] < BAR_P99_MS
    )
    row = (
        f"{figures['interactions_per_second']:,}",
        f"{figures['p50_ms']:.1f}",
        f"{figures['p99_ms']:.1f}",
        figures["concurrency"],
        figures["load"],
        f"{BAR_PER_SECOND:,} and p99 under {BAR_P99_MS} ms",
        "yes" if reached else "NO",
    )
    return markdown(header, [row])


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench ingest")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--concurrency", type=int, default=2, help="batches in flight")
    return parser.parse_args(arguments)
