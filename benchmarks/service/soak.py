"""Does the memory of the API and the worker stay flat over half an hour of work?

    msr bench soak [--minutes 30] [--warm-up-minutes 5] [--save]

`msr serve` and `msr worker` over the demo world, both on one vLLM server on a CPU, and a Redis. Two
clients first take turns without a pause: that rate is full load. Then sessions come at half of it:
one interaction of one of 5,000 users, then recommendations for that user. The figure is resident
memory, the median of the first five minutes after the warm-up against the median of the last five.
Exit status 1 if it grew by 5 % or more, if an answer was an error, or if the worker fell behind.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import httpx
import psutil

from benchmarks.faults.service import NUM_ITEMS, api, prepare
from benchmarks.faults.supervised_process import (
    SupervisedProcess,
    ended_after,
    free_port,
    redis_server,
)
from benchmarks.support.runner import markdown
from services.deployment.assemble import DEMO_WEIGHTS
from services.process.announce import LISTENING

NUM_USERS = 5_000
NUM_RECOMMENDED = 5
NUM_SCORED = 2
CLIENTS_AT_FULL_LOAD = 2
SAMPLE_SECONDS = 5.0
COMPARED_MINUTES = 5.0
BAR_GROWTH = 0.05
MEGABYTE = 10**6
QUICK = ("--minutes", "0.2", "--warm-up-minutes", "0", "--full-load-seconds", "3")


@dataclass(slots=True)
class Seen:
    """What came of the sessions; status 0: no answer."""

    statuses: Counter[int] = field(default_factory=Counter)
    num_degraded: int = 0


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Resident memory of both programs, what they did meanwhile, and whether they kept up."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, _ = await prepare(folder)
        port = free_port()
        redis, model = redis_server(folder, port), _model_server(folder)
        programs = [redis, model]
        with ended_after(programs):
            await asyncio.gather(redis.start(), model.start())
            redis_url = f"redis://127.0.0.1:{port}/0"
            server = api(data, redis_url, [model], folder, MSR_NUM_SCORED=str(NUM_SCORED))
            worker = _worker(data, redis_url, model, folder)
            programs += [server, worker]
            await server.start()
            await worker.start()
            return await _soak(server, worker, options)


async def _soak(
    server: SupervisedProcess, worker: SupervisedProcess, options: argparse.Namespace
) -> dict[str, Any]:
    sessions, seen = count(), Seen()
    async with httpx.AsyncClient(base_url=server.said, timeout=60) as http:
        full_rate = await _full_load(http, sessions, options.full_load_seconds)
        load = asyncio.create_task(_half_load(http, sessions, full_rate / 2, seen))
        try:
            await asyncio.sleep(60 * options.warm_up_minutes)
            samples = await _sample({"api": server, "worker": worker}, 60 * options.minutes)
        finally:
            load.cancel()
            await asyncio.wait([load])
        waiting = await _gauge(http, "msr_backlog_updates")
    num_compared = max(1, round(60 * min(COMPARED_MINUTES, options.minutes / 2) / SAMPLE_SECONDS))
    return {
        "minutes": options.minutes,
        "sessions_per_second": round(full_rate / 2, 1),
        "answers": sum(seen.statuses.values()),
        "errors": sum(n for status, n in seen.statuses.items() if status not in (200, 202)),
        "degraded": seen.num_degraded,
        "updates_waiting": waiting,
        "memory": {name: _growth(each, num_compared) for name, each in samples.items()},
        # Runnable processes of the whole machine, this benchmark's own included.
        "machine_load": round(os.getloadavg()[0], 1),
    }


def _growth(samples: Sequence[int], num_compared: int) -> dict[str, float]:
    first = statistics.median(samples[:num_compared])
    last = statistics.median(samples[-num_compared:])
    return {
        "first_mb": round(first / MEGABYTE, 1),
        "last_mb": round(last / MEGABYTE, 1),
        "most_mb": round(max(samples) / MEGABYTE, 1),
        "growth": round(last / first - 1, 4),
    }


# --- load ----------------------------------------------------------------------------------------


async def _full_load(http: httpx.AsyncClient, sessions: "count[int]", seconds: float) -> float:
    """Sessions a second, when the next one begins as soon as one has ended."""
    end = time.monotonic() + seconds
    num_ended = 0

    async def in_turn() -> None:
        nonlocal num_ended
        while time.monotonic() < end:
            await _session(http, next(sessions), Seen())
            num_ended += 1

    await asyncio.gather(*(in_turn() for _ in range(CLIENTS_AT_FULL_LOAD)))
    return num_ended / seconds


async def _half_load(
    http: httpx.AsyncClient, sessions: "count[int]", rate: float, seen: Seen
) -> None:
    """Sessions at random moments until cancelled, whatever becomes of those before."""
    draw = Random("moments")
    async with asyncio.TaskGroup() as group:
        while True:
            await asyncio.sleep(draw.expovariate(rate))
            group.create_task(_session(http, next(sessions), seen))


async def _session(http: httpx.AsyncClient, number: int, seen: Seen) -> None:
    draw = Random(number)
    user = f"user-{draw.randrange(NUM_USERS)}"
    item = f"item-{draw.randrange(NUM_ITEMS):05d}"
    bodies = {
        "/interactions": {"user_id": user, "item_id": item},
        "/recommend": {"user_id": user, "k": NUM_RECOMMENDED},
    }
    for path, body in bodies.items():
        try:
            answer = await http.post(path, json=body)
        except httpx.TransportError:
            seen.statuses[0] += 1
            continue
        seen.statuses[answer.status_code] += 1
        seen.num_degraded += answer.is_success and answer.json().get("degraded", False)


# --- what is watched -----------------------------------------------------------------------------


async def _sample(programs: dict[str, SupervisedProcess], seconds: float) -> dict[str, list[int]]:
    """Resident bytes of each program, every SAMPLE_SECONDS. RuntimeError if one ended."""
    samples: dict[str, list[int]] = {name: [] for name in programs}
    for _ in range(max(2, round(seconds / SAMPLE_SECONDS))):
        await asyncio.sleep(SAMPLE_SECONDS)
        for name, program in programs.items():
            samples[name].append(psutil.Process(program.pid).memory_info().rss)
    return samples


async def _gauge(http: httpx.AsyncClient, name: str) -> int:
    text = (await http.get("/metrics")).raise_for_status().text
    [line] = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return int(float(line.split()[1]))


# --- programs ------------------------------------------------------------------------------------


def _worker(
    data: Path, redis_url: str, model: SupervisedProcess, folder: Path
) -> SupervisedProcess:
    line = [sys.executable, "-m", "services.cli", "worker", "--data", str(data)]
    return SupervisedProcess(
        "worker",
        [*line, "--engine", "vllm", "--url", model.said],
        ready="worker_started",
        folder=folder,
        environment={"REDIS_URL": redis_url},
    )


def _model_server(folder: Path) -> SupervisedProcess:
    """Base and adapter on one server: the worker writes by the base."""
    line = [sys.executable, "-m", "services.cli", "serve-model", "--port", "0"]
    weights = ["--model", str(DEMO_WEIGHTS / "base"), "--adapter", f"demo={DEMO_WEIGHTS}/adapter"]
    return SupervisedProcess(
        "model", [*line, *weights, "--kv-cache-gb", "0.25"], ready=LISTENING, folder=folder
    )


# --- the answer ----------------------------------------------------------------------------------


def holds(figures: dict[str, Any]) -> bool:
    """Whether memory stayed flat while everything was answered and covered by preferences."""
    kept_up = figures["updates_waiting"] <= 60 * figures["sessions_per_second"]
    flat = all(each["growth"] < BAR_GROWTH for each in figures["memory"].values())
    return flat and kept_up and figures["errors"] == 0


def table(figures: dict[str, Any]) -> str:
    """One row a program."""
    header = ("program", "first MB", "last MB", "most MB", "growth", "bar", "reached")
    rows = [
        (
            name,
            each["first_mb"],
            each["last_mb"],
            each["most_mb"],
            f"{each['growth']:+.1%}",
            f"under {BAR_GROWTH:.0%}",
            "yes" if each["growth"] < BAR_GROWTH else "NO",
        )
        for name, each in figures["memory"].items()
    ]
    work = (
        f"{figures['minutes']:g} minutes at {figures['sessions_per_second']} sessions/s, "
        f"{figures['answers']:,} answers, {figures['errors']} of them errors, "
        f"{figures['degraded']:,} degraded; "
        f"{figures['updates_waiting']} updates waiting at the end; "
        f"machine's load {figures['machine_load']}"
    )
    return f"{markdown(header, rows)}\n\n{work}"


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench soak")
    parser.add_argument("--minutes", type=float, default=30.0, help="after the warm-up")
    parser.add_argument("--warm-up-minutes", type=float, default=5.0)
    parser.add_argument("--full-load-seconds", type=float, default=30.0)
    return parser.parse_args(arguments)
