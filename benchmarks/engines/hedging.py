"""What does a hedged second request gain when one of two replicas stalls now and then?

    msr bench hedging [--rounds 3] [--seconds 30] [--rate 10] [--save]

Two real vLLM servers of the demo model on a CPU. One of them is frozen (SIGSTOP) for half a second
every five seconds, on average. Scores are asked for in an open loop, by an engine without hedging
and by one with it, in turns; latencies count from when a prompt is due.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.faults.model_server import NAME, ModelServer
from benchmarks.faults.service import NUM_ITEMS, prepare
from benchmarks.faults.supervised_process import ended_after
from benchmarks.support.runner import markdown
from services.core.artifacts import Artifact
from services.core.errors import EngineError
from services.core.prompts import scoring_messages
from services.core.records import Item, ItemId
from services.engines.contract import HEDGE_SHARE, EngineOptions
from services.engines.vllm_client.engine import VllmEngine
from services.engines.vllm_client.hedging import NUM_TO_JUDGE

STALL_SECONDS = 0.5
STALL_EVERY_SECONDS = 5.0
NUM_WARM = 2 * NUM_TO_JUDGE
QUICK = ("--rounds", "1", "--seconds", "4", "--rate", "4")


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Quantiles with and without, over all rounds, and the share of prompts asked twice."""
    options = _options(arguments)
    latencies: dict[float, list[float]] = {0.0: [], HEDGE_SHARE: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, checkpoint = await prepare(folder)
        items = _read_items(data)
        servers = [ModelServer(checkpoint, folder, f"model-{number}") for number in range(2)]
        with ended_after(servers):
            await asyncio.gather(*(server.start() for server in servers))
            engines = {share: await _connect(servers, share) for share in latencies}
            draw = Random(0)
            for engine in engines.values():
                await _warm_up(engine, items, draw)
            hedges_before = sum(engines[HEDGE_SHARE].num_hedges.values())
            for _ in range(options.rounds):
                for share, engine in engines.items():
                    stalling = asyncio.create_task(_stall(servers[0], Random(share)))
                    latencies[share] += await _ask(engine, items, options, draw)
                    stalling.cancel()
                    await asyncio.wait([stalling])
            num_hedged = sum(engines[HEDGE_SHARE].num_hedges.values()) - hedges_before
            for engine in engines.values():
                await engine.close()
    return {
        "without": _quantiles(latencies[0.0]),
        "with": _quantiles(latencies[HEDGE_SHARE]),
        "asked_twice_share": round(num_hedged / len(latencies[HEDGE_SHARE]), 4),
        "rate": options.rate,
    }


async def _connect(servers: Sequence[ModelServer], share: float) -> VllmEngine:
    urls = [server.said for server in servers]
    return await VllmEngine.connect(EngineOptions(NAME, urls=urls, hedge_share=share))


async def _warm_up(engine: VllmEngine, items: Sequence[Item], draw: Random) -> None:
    """Until the engine knows how long answers take, and has saved up a few hedges."""
    for _ in range(NUM_WARM):
        await _score(engine, items, draw)


async def _score(engine: VllmEngine, items: Sequence[Item], draw: Random) -> None:
    # No two alike, so that no answer is cached; the image's prefix may be.
    await engine.score(scoring_messages(f"Likes {draw.random()}", draw.choice(items)))


async def _ask(
    engine: VllmEngine, items: Sequence[Item], options: argparse.Namespace, draw: Random
) -> list[float]:
    """Seconds of each answer; an error counts as its time."""
    now = asyncio.get_running_loop().time
    latencies = []

    async def ask(due_at: float) -> None:
        with suppress(EngineError):
            await _score(engine, items, draw)
        latencies.append(now() - due_at)

    due_at = started = now()
    async with asyncio.TaskGroup() as tasks:
        while due_at < started + options.seconds:
            await asyncio.sleep(max(0.0, due_at - now()))
            tasks.create_task(ask(due_at))
            due_at += draw.expovariate(options.rate)
    return latencies


async def _stall(server: ModelServer, draw: Random) -> None:
    while True:
        await asyncio.sleep(draw.expovariate(1 / STALL_EVERY_SECONDS))
        with server.frozen():
            await asyncio.sleep(STALL_SECONDS)


def _read_items(data: Path) -> list[Item]:
    rows = Artifact(str(data), "items").read(["item_id", "title", "image"]).to_pylist()
    assert len(rows) == NUM_ITEMS
    return [Item(ItemId(row["item_id"]), row["title"], row["image"]) for row in rows]


def _quantiles(latencies: Sequence[float]) -> dict[str, float]:
    ordered = sorted(latencies)
    quantiles = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
    found = {name: ordered[int(share * len(ordered))] for name, share in quantiles.items()}
    return {"prompts": len(ordered), **{name: round(1000 * s, 1) for name, s in found.items()}}


def table(figures: dict[str, Any]) -> str:
    """One row each way."""
    rows = [(way, *figures[way].values()) for way in ("without", "with")]
    shown = markdown(("hedging", "prompts", "p50 ms", "p95 ms", "p99 ms"), rows)
    return f"{shown}\n\n{figures['asked_twice_share']:.1%} of the prompts were asked twice"


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench hedging")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each way in a round")
    parser.add_argument("--rate", type=float, default=10.0, help="prompts a second")
    return parser.parse_args(arguments)
