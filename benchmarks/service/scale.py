"""How do latency and memory grow: with the candidates of a request, the items, the users?

    msr bench scale [--candidates 5,10,20,50,100,200] [--items ...] [--users ...] [--history 50]

Candidates: `POST /recommend` in mode mllm through `msr serve` and vLLM (33 million random
parameters, bfloat16 where the processor has it), one request at a time, items warm, every request
for a user whose preference is new. Items: the retrieval stage alone, over synthetic rankers
(`retrieval_scale.py`), for histories of 30. Users: their states in a real Redis, each with a
history of `--history` (50) interactions (`users_scale.py`). What is given no size (`--candidates
""`) is left out.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.support.random_model import SHAPES, Shape, write_checkpoint
from benchmarks.support.retrieval_scale import measure_retrieval, percentiles
from benchmarks.support.runner import markdown
from benchmarks.support.served_model import serve
from benchmarks.support.synthetic_service import SyntheticService, serve_catalogue
from benchmarks.support.users_scale import measure_users

USERS_A_SIZE = 3
WARM_UP_STEP = 20
MEGABYTE = 10**6
QUICK = (
    *("--model", "tiny", "--candidates", "5,10", "--items", "500"),
    *("--users", "100", "--history", "10"),
)


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Rows by what grows: `candidates`, `items`, `users`."""
    options = _options(arguments)
    return {
        "candidates": await _measure_candidates(options.candidates, SHAPES[options.model]),
        "items": [_measure_items(size) for size in options.items],
        "users": await measure_users(options.users, options.history),
    }


def table(figures: dict[str, Any]) -> str:
    """One row a size."""
    header = ("what grows", "to", "median, ms", "95th percentile, ms", "per second", "memory")
    rows = [
        (
            f"candidates of POST /recommend, warm ({row['scored_share']:.1%} scored in time)",
            *_latency(row),
            f"{row['per_second']:.1f}",
            "",
        )
        for row in figures["candidates"]
    ]
    rows += [
        (
            f"items, retrieve 200 ({row['recall']:.1%} of the best found)",
            *_latency(row),
            f"{1000 / row['median_ms']:,.0f}",
            _memory(row),
        )
        for row in figures["items"]
    ]
    rows += [
        (
            f"users in Redis with {row['num_interactions']} interactions, load one",
            *_latency(row),
            f"{1000 / row['median_ms']:,.0f}",
            _memory(row),
        )
        for row in figures["users"]
    ]
    return markdown(header, rows)


def _latency(row: dict[str, Any]) -> tuple[str, str, str]:
    return f"{row['size']:,}", f"{row['median_ms']:.2f}", f"{row['p95_ms']:.2f}"


def _memory(row: dict[str, Any]) -> str:
    return f"{row['bytes'] / MEGABYTE:,.1f} MB, {row['bytes_each']:,} bytes each"


async def _measure_candidates(sizes: Sequence[int], shape: Shape) -> list[dict[str, Any]]:
    if not sizes:
        return []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(Path(folder) / "checkpoint", shape)
        async with (
            serve(checkpoint) as model,
            serve_catalogue(
                model, num_items=max(sizes), num_users=1 + USERS_A_SIZE * len(sizes)
            ) as service,
        ):
            users = iter(service.preference_of)
            await _warm_up(service, next(users), max(sizes))
            rows = []
            for size in sizes:
                seconds, num_scored = [], 0
                for _ in range(USERS_A_SIZE):
                    started = time.perf_counter()
                    num_scored += (await service.recommend_in_time(next(users), size)).num_scored
                    seconds.append(time.perf_counter() - started)
                scored = {
                    "per_second": num_scored / sum(seconds),
                    "scored_share": num_scored / (size * USERS_A_SIZE),
                }
                rows.append({"size": size, **percentiles(seconds), **scored})
            return rows


async def _warm_up(service: SyntheticService, user_id: Any, num_items: int) -> None:
    """In steps that a request's deadline allows: what was scored before is not asked again."""
    for reached in range(WARM_UP_STEP, num_items + WARM_UP_STEP, WARM_UP_STEP):
        await service.recommend_in_time(user_id, min(reached, num_items))


def _measure_items(num_items: int) -> dict[str, Any]:
    # A process for each size: what an earlier one gave back does not hide what this one takes.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure_retrieval, num_items).result()


def _sizes(text: str) -> list[int]:
    return sorted(int(part) for part in text.split(",") if part)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench scale")
    parser.add_argument("--candidates", type=_sizes, default=[5, 10, 20, 50, 100, 200])
    parser.add_argument("--items", type=_sizes, default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--users", type=_sizes, default=[1000, 10_000, 100_000])
    parser.add_argument("--history", type=int, default=50)
    parser.add_argument("--model", choices=SHAPES, default="small", help="its size")
    return parser.parse_args(arguments)
