"""What do users get while the model server or Redis fails, and how soon is all well again?

    msr bench degrade [--seconds 60] [--rate 50] [--deadline 1] [--fault killed ...] [--save]

`msr serve` over the demo world, the demo model behind a real vLLM server on a CPU, Redis, and an
open loop of POST /recommend (faults/load.py), each request for another user, so that no score comes
from the cache. Each fault lasts `--seconds`:

    killed   SIGKILL of the model server, started again at the end
    frozen   SIGSTOP: it accepts connections and never answers
    slow     it runs for 10 ms of every 100
    redis-stopped, redis-frozen   the same of Redis, without which there is nothing to rank

A CPU scores fewer candidates than such a load has, so that most requests are shed even before the
fault; the share with full scores, before and after, says what came back. Exit status 1 if an
answer came later than 50 ms after its deadline, if a model server's fault made one a 5xx, or if
full scores took more than 5 s to come back after the server listened again.
"""

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.faults.degradation import Moments, judge
from benchmarks.faults.load import load_on
from benchmarks.faults.model_server import ModelServer
from benchmarks.faults.service import api, prepare, put_users
from benchmarks.faults.supervised_process import (
    SupervisedProcess,
    ended_after,
    free_port,
    redis_server,
)
from benchmarks.support.runner import markdown

MODEL_FAULTS = ("killed", "frozen", "slow")
REDIS_FAULTS = ("redis-stopped", "redis-frozen")
# A killed server loads for as long as the machine lets it.
RESTART_SECONDS = 150.0
NUM_SCORED = 2
BAR_RECOVERY_SECONDS = 5.0
AROUND_SECONDS = 10.0
QUICK = (
    *("--seconds", "3", "--around-seconds", "3", "--rate", "5"),
    *("--fault", "frozen", "--fault", "redis-stopped"),
)


@dataclass(frozen=True, slots=True)
class Service:
    """What runs, and where."""

    redis: SupervisedProcess
    redis_url: str
    model: ModelServer
    server: SupervisedProcess
    folder: Path


@dataclass(frozen=True, slots=True)
class Load:
    """How requests come."""

    rate: float
    deadline: float
    seconds: float
    around_seconds: float = AROUND_SECONDS


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """The figures of each fault, under its name."""
    options = _options(arguments)
    load = Load(options.rate, options.deadline, options.seconds, options.around_seconds)
    with tempfile.TemporaryDirectory() as name:
        async with serving(Path(name), num_scored=options.num_scored) as service:
            faults = {}
            for fault in options.fault or (*MODEL_FAULTS, *REDIS_FAULTS):
                faults[fault] = await suffer(service, fault, load)
    return {
        "faults": faults,
        "rate": load.rate,
        "deadline_seconds": load.deadline,
        "seconds": load.seconds,
        "candidates_scored": options.num_scored,
        # Runnable processes of the whole machine, this benchmark's own included.
        "machine_load": round(os.getloadavg()[0], 1),
    }


@asynccontextmanager
async def serving(folder: Path, *, num_scored: int = NUM_SCORED) -> AsyncIterator[Service]:
    """Redis, the model server and the API; all ended after."""
    data, checkpoint = await prepare(folder)
    port = free_port()
    redis_url = f"redis://127.0.0.1:{port}/0"
    redis, model = redis_server(folder, port), ModelServer(checkpoint, folder)
    programs: list[SupervisedProcess] = [redis, model]
    with ended_after(programs):
        await asyncio.gather(redis.start(), model.start())
        server = api(data, redis_url, [model], folder, MSR_NUM_SCORED=str(num_scored))
        programs.append(server)
        await server.start()
        yield Service(redis, redis_url, model, server, folder)


async def suffer(service: Service, fault: str, load: Load) -> dict[str, Any]:
    """Let one fault happen under load, and judge the answers."""
    lasting = 2 * load.around_seconds + load.seconds + (fault == "killed") * RESTART_SECONDS
    await put_users(service.redis_url, fault, round(load.rate * lasting))
    api_process = psutil.Process(service.server.pid)
    num_open = api_process.num_fds()
    out = service.folder / f"{fault}.jsonl"
    with load_on(
        service.server.said, fault, out, rate=load.rate, deadline=load.deadline
    ) as generator:
        await asyncio.sleep(load.around_seconds)
        struck_at = time.monotonic()
        await _strike(service, fault, load.seconds)
        mended_at = time.monotonic()
        await asyncio.sleep(load.around_seconds)
        answers = await generator.end()
    figures = judge(answers, Moments(struck_at, mended_at), load.deadline)
    return {
        **figures,
        "files_open": {"before": num_open, "after": api_process.num_fds()},
        "holds": _holds(fault, figures),
    }


async def _strike(service: Service, fault: str, seconds: float) -> None:
    """Return when it is mended."""
    redis, model = service.redis, service.model
    match fault:
        case "killed" | "redis-stopped":
            program = model if fault == "killed" else redis
            await program.kill()
            await asyncio.sleep(seconds)
            await program.start()
        case "frozen":
            with model.frozen():
                await asyncio.sleep(seconds)
        case "slow":
            async with model.slowed_down():
                await asyncio.sleep(seconds)
        case "redis-frozen":
            redis.freeze()
            await asyncio.sleep(seconds)
            redis.thaw()


def _holds(fault: str, figures: dict[str, Any]) -> bool:
    back = figures["recovery_seconds"]
    return (
        figures["in_time_share"] == 1.0
        and figures["unanswered"] == 0
        and (figures["answered_5xx"] == 0 or fault in REDIS_FAULTS)
        and back is not None
        and back <= BAR_RECOVERY_SECONDS
        and figures["full_share_before"] > 0
        and figures["full_share_after"] >= figures["full_share_before"] / 2
    )


def holds(figures: dict[str, Any]) -> bool:
    """Whether every fault was borne as it must be."""
    return all(each["holds"] for each in figures["faults"].values())


def table(figures: dict[str, Any]) -> str:
    """One row a fault."""
    header = (
        "fault", "requests", "in time", "5xx", "degraded", "p50 ms", "p99 ms", "worst ms",
        "full before", "during", "after", "full again after s", "sent late p99 ms", "holds",
    )  # fmt: skip
    rows = [
        (
            fault,
            f"{each['requests']:,}",
            f"{each['in_time_share']:.2%}",
            each["answered_5xx"],
            f"{each['degraded_share']:.1%}",
            each["p50_ms"],
            each["p99_ms"],
            each["worst_ms"],
            *(f"{each[f'full_share_{when}']:.1%}" for when in ("before", "during", "after")),
            each["recovery_seconds"],
            each["sent_late_p99_ms"],
            "yes" if each["holds"] else "NO",
        )
        for fault, each in figures["faults"].items()
    ]
    load = (
        f"{figures['rate']:g} requests/s, deadline {figures['deadline_seconds']:g} s, each fault "
        f"{figures['seconds']:g} s, {figures['candidates_scored']} candidates to score, "
        f"machine's load {figures['machine_load']}"
    )
    return f"{markdown(header, rows)}\n\n{load}"


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench degrade")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each fault lasts")
    parser.add_argument(
        "--around-seconds",
        type=float,
        default=AROUND_SECONDS,
        help="of load before and after each fault",
    )
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--deadline", type=float, default=1.0, help="of each request, in seconds")
    parser.add_argument("--num-scored", type=int, default=NUM_SCORED, help="candidates a request")
    parser.add_argument("--fault", action="append", choices=[*MODEL_FAULTS, *REDIS_FAULTS])
    return parser.parse_args(arguments)
