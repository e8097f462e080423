"""Does the API keep what its OpenAPI document promises, whatever it is sent?

    msr bench fuzz [--examples 150] [--seed 0]

schemathesis reads the document of a running `msr serve` and sends every operation what it allows
and what it does not: examples, every edge of every schema, drawn requests, and sequences of them.
All its checks hold: no 5xx, and no status, header, content type or body that the document does
not list. Once with a server that asks nobody for a key, once with one that asks everybody.

The server runs the demo model on a Redis of its own, and a worker updates (faults/worker.py).
schemathesis comes with `pip install 'mllm-msr[dev]'`.
"""

import argparse
import asyncio
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.faults.supervised_process import api, ended_after, free_port, redis_server, worker
from benchmarks.faults.world import prepare
from benchmarks.support.runner import markdown
from services.core.api_keys import Scope, issue
from services.core.errors import InputError
from services.core.wire.common import MAX_TIMEOUT_SECONDS
from services.state.api_keys import ApiKeys
from services.state.user_store import Store

BAR_CASES = 2_000
WAYS = ("keyless", "keys required")
PHASES = ("examples", "coverage", "fuzzing", "stateful")
QUICK = ("--examples", "1", "--phases", "examples,fuzzing")
_CONFIG = Path(__file__).parents[1] / "attacks" / "schemathesis.toml"
_GENERATED = re.compile(r"(\d+) generated")
_LAST_WORDS = 20_000


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """How many requests were made up, and what schemathesis said of them at its end."""

    num_cases: int
    has_passed: bool
    said: str


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Cases and failures, without keys and with them."""
    options = _options(arguments)
    figures: dict[str, Any] = {"seed": options.seed}
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            fuzzed = await fuzz(
                Path(folder),
                with_keys=way == "keys required",
                num_examples=options.examples,
                seed=options.seed,
                phases=options.phases,
            )
        if not fuzzed.has_passed:
            print(fuzzed.said, file=sys.stderr)
        figures[way] = {"cases": fuzzed.num_cases, "passed": fuzzed.has_passed}
    figures["cases"] = sum(figures[way]["cases"] for way in WAYS)
    return figures


def holds(figures: dict[str, Any]) -> bool:
    """Whether enough was sent, and nothing was answered against the document."""
    return figures["cases"] >= BAR_CASES and all(figures[way]["passed"] for way in WAYS)


def table(figures: dict[str, Any]) -> str:
    """One row a way."""
    rows = [
        (way, f"{figures[way]['cases']:,}", "yes" if figures[way]["passed"] else "NO")
        for way in WAYS
    ]
    rows.append(("together", f"{figures['cases']:,}", f"bar {BAR_CASES:,}"))
    return markdown(("server", "cases", "all checks passed"), rows)


async def fuzz(
    folder: Path,
    *,
    with_keys: bool,
    num_examples: int,
    seed: int,
    phases: Sequence[str] = PHASES,
) -> Fuzzed:
    """One server, fuzzed; `num_examples` are drawn for each operation in the last two phases."""
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    if program is None:
        raise InputError("schemathesis is not installed; run `pip install 'mllm-msr[dev]'`")
    data, port = await prepare(folder), free_port()
    redis, redis_url = redis_server(folder, port), f"redis://127.0.0.1:{port}/0"
    environment = {"MSR_STREAM_SECONDS": "0.1"}  # schemathesis reads each answer to its end
    if with_keys:
        environment["MSR_REQUIRE_KEYS"] = "1"
    server = api(data, redis_url, folder, **environment)
    updating = worker(0, redis_url, folder)
    with ended_after([redis, server, updating]):
        await redis.start()
        await asyncio.gather(server.start(), updating.start())
        headers = {"Authorization": f"Bearer {await _make_key(redis_url)}"} if with_keys else {}
        await _put_what_examples_name(server.said, headers)
        process = await asyncio.create_subprocess_exec(
            *(program, "--config-file", str(_CONFIG), "run", f"{server.said}/openapi.json"),
            *("--checks", "all", "--max-examples", str(num_examples), "--seed", str(seed)),
            *("--phases", ",".join(phases), "--continue-on-failure", "--no-color"),
            # Longer than the longest deadline that a request may name.
            *("--request-timeout", str(MAX_TIMEOUT_SECONDS + 30)),
            *(part for name, each in headers.items() for part in ("-H", f"{name}: {each}")),
            cwd=folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = (await process.communicate())[0].decode(errors="replace")
        await server.stop()
    generated = _GENERATED.search(said)
    return Fuzzed(
        num_cases=int(generated[1]) if generated else 0,
        has_passed=process.returncode == 0,
        said=said[-_LAST_WORDS:],
    )


async def _make_key(redis_url: str) -> str:
    store = await Store.open(redis_url)
    key, token = issue("fuzz", list(Scope), now_ms=time.time_ns() // 1_000_000)
    await ApiKeys(store.connection).add(key)
    await store.close()
    return token


async def _put_what_examples_name(url: str, headers: dict[str, str]) -> None:
    """The item and the user of the document's examples, so that they are found."""
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
        put = await http.put("/items", json={"item_id": "i7", "title": "A red fox in the snow"})
        taken = await http.post("/interactions", json={"user_id": "u42", "item_id": "i7"})
        put.raise_for_status()
        taken.raise_for_status()


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench fuzz")
    parser.add_argument("--examples", type=int, default=150, help="drawn for each operation")
    parser.add_argument("--phases", type=lambda names: names.split(","), default=PHASES)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)
