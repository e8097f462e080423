"""The same work on a GPU: a 7B-shaped LLaVA-NeXT of dummy weights, and what of the card it uses.

    msr bench scoring|summaries|preferences --gpu

The configuration is written on the spot and vLLM makes up the weights (`--load-format dummy`), so
nothing is downloaded. Reported are tokens per second, the prefix hit rate, and the share of the
card's own matrix rate: operations by `arithmetic.py` over seconds, over the bfloat16 rate of a
large product measured in the same run, just before. There is no reference loop here: at this size
it would take most of an hour.
"""

import contextlib
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import torch

from benchmarks.support.arithmetic import Work
from benchmarks.support.random_model import MAX_POSITIONS, SEVEN_B, write_configuration
from benchmarks.support.runner import markdown
from benchmarks.support.served_model import MODEL_NAME, ServedModel, connected, generate_all
from benchmarks.support.synthetic_catalogue import (
    draw_items,
    draw_preference,
    draw_preference_prompts,
)
from services.core.errors import InputError
from services.core.prompts import GenerationLimits, summary_messages
from services.core.records import Item
from services.core.scoring import NOT_CALIBRATED, score_candidates
from services.engines.contract import EngineIdentity
from services.engines.weight_labels import labels
from services.process.http_server import reserved

NUM_ROUNDS = 3
NUM_ITEMS = 256
NUM_USERS = 512
LIMITS = GenerationLimits(100)
START_SECONDS = 900.0
MATRIX_SIDE = 8192
NUM_PRODUCTS = 50


@dataclass(frozen=True, slots=True)
class Measured:
    """One turn of work: what the server counted, and how long it took."""

    work: Work
    seconds: float


async def measure_scoring() -> dict[str, Any]:
    """Cold items, then the same items for another user."""
    cold, warm = "scores, items cold", "scores, items warm"

    async def score(model: ServedModel, user: str, items: Sequence[Item]) -> None:
        await score_candidates(model.engine.score, draw_preference(user), items, NOT_CALIBRATED)

    async def run_round(meter: _Meter, name: str) -> None:
        items = draw_items(name, NUM_ITEMS)
        await meter.measure(cold, partial(score, meter.model, "one", items), NUM_ITEMS, NUM_ITEMS)
        await meter.measure(warm, partial(score, meter.model, "another", items), NUM_ITEMS, 0)

    return await _measure(run_round)


async def measure_summaries() -> dict[str, Any]:
    """Summaries of new images, all in flight."""

    async def run_round(meter: _Meter, name: str) -> None:
        prompts = [summary_messages(item) for item in draw_items(name, NUM_ITEMS)]
        work = partial(generate_all, meter.model, prompts, LIMITS)
        await meter.measure("summaries", work, NUM_ITEMS, NUM_ITEMS)

    return await _measure(run_round)


async def measure_preferences() -> dict[str, Any]:
    """Preferences of one wave, all in flight."""

    async def run_round(meter: _Meter, name: str) -> None:
        prompts = draw_preference_prompts(name, NUM_USERS)
        work = partial(generate_all, meter.model, prompts, LIMITS)
        await meter.measure("preferences", work, NUM_USERS, 0)

    return await _measure(run_round)


def table(figures: dict[str, Any]) -> str:
    """One row a kind of work, below the card and its rate."""
    rows = [
        (
            name,
            row["prompts"],
            f"{row['seconds']:.2f}",
            f"{row['prompts_per_second']:.1f}",
            f"{row['new_tokens_per_second']:,.0f}",
            f"{row['generated_tokens_per_second']:,.0f}",
            f"{row['kv_hit_rate']:.3f}",
            f"{row['matrix_share']:.1%}",
        )
        for name, row in figures["measured"].items()
    ]
    header = (
        *("work", "prompts", "seconds", "prompts/s", "new prompt tokens/s", "generated tokens/s"),
        *("KV hit rate", "share of matrix rate"),
    )
    card = f"{figures['gpu']}: {figures['matrix_tflops']:.0f} TFLOP/s in bfloat16"
    return f"{card}\n\n{markdown(header, rows)}"


def summarize_turns(turns: Sequence[Measured], matrix_rate: float) -> dict[str, float]:
    """Medians over turns of the same work; `matrix_rate` in operations a second."""
    seconds = median(turn.seconds for turn in turns)
    work = turns[0].work

    def rate(count: Callable[[Work], float]) -> float:
        return median(count(turn.work) / turn.seconds for turn in turns)

    return {
        "prompts": work.prompts,
        "seconds": round(seconds, 3),
        "prompts_per_second": round(rate(lambda work: work.prompts), 2),
        "new_tokens_per_second": round(rate(lambda work: work.new_tokens), 1),
        "generated_tokens_per_second": round(rate(lambda work: work.generated_tokens), 1),
        "kv_hit_rate": round(median(t.work.cached_tokens / t.work.prompt_tokens for t in turns), 4),
        "matrix_share": round(rate(lambda work: work.flops(SEVEN_B)) / matrix_rate, 4),
    }


class _Meter:
    """Lets a server work, and keeps what it counted and how long it took."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self.turns: dict[str, list[Measured]] = defaultdict(list)

    async def measure(
        self, name: str, work: Callable[[], Awaitable[None]], num_prompts: int, num_images: int
    ) -> None:
        before = await self.model.count_tokens()
        started = time.perf_counter()
        await work()
        seconds = time.perf_counter() - started
        counted = (await self.model.count_tokens()).since(before)
        done = Work(num_prompts, counted.prompt, counted.cached, counted.generated, num_images)
        self.turns[name].append(Measured(done, seconds))


async def _measure(run_round: Callable[[_Meter, str], Awaitable[None]]) -> dict[str, Any]:
    """The figures of NUM_ROUNDS rounds after one that warms up."""
    if not torch.cuda.is_available():
        raise InputError("--gpu needs a GPU that torch can use, and there is none here")
    # In a process of its own, which takes its memory with it when it ends.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        matrix_rate = pool.submit(measure_matrix_rate).result()
    with tempfile.TemporaryDirectory() as folder:
        write_configuration(Path(folder), SEVEN_B)
        with _dummy_server(folder) as url:
            async with connected(url) as model:
                await run_round(_Meter(model), "warm up")
                meter = _Meter(model)
                for number in range(NUM_ROUNDS):
                    await run_round(meter, f"round {number}")
    return {
        "gpu": torch.cuda.get_device_name(),
        "matrix_tflops": round(matrix_rate / 1e12, 1),
        "measured": {
            name: summarize_turns(turns, matrix_rate) for name, turns in meter.turns.items()
        },
    }


# --- the card and the server ---------------------------------------------------------------------


def measure_matrix_rate() -> float:
    """Operations a second of large bfloat16 products on this GPU."""
    a = torch.randn(MATRIX_SIDE, MATRIX_SIDE, device="cuda", dtype=torch.bfloat16)
    b = torch.randn_like(a)
    for _ in range(NUM_PRODUCTS):  # clocks and kernels settle
        a @ b
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(NUM_PRODUCTS):
        a @ b
    torch.cuda.synchronize()
    return 2.0 * MATRIX_SIDE**3 * NUM_PRODUCTS / (time.perf_counter() - started)


@contextlib.contextmanager
def _dummy_server(folder: str) -> Iterator[str]:
    """A vLLM on a configuration without weights, which `msr serve-model` rightly refuses."""
    with reserved("127.0.0.1", 0, remedy="another machine") as port:
        url = f"http://127.0.0.1:{port}"
        process = subprocess.Popen(dummy_command(folder, port), stdout=sys.stderr)
        try:
            _wait_until_healthy(url, process)
            yield url
        finally:
            process.terminate()
            process.wait()


def dummy_command(folder: str, port: int) -> list[str]:
    """The command line of a vLLM that makes up its weights and says so by its labels."""
    names = [MODEL_NAME, *labels(EngineIdentity("dummy-7b", ""), {})]
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder),
        *("--served-model-name", *names, "--load-format", "dummy", "--dtype", "bfloat16"),
        *("--max-model-len", str(MAX_POSITIONS), "--enable-prompt-tokens-details"),
        # For releases before `logprob_token_ids` (chat_requests.py), as older torches need.
        *("--logprobs-mode", "processed_logprobs"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]


def _wait_until_healthy(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"vLLM ended with {process.returncode} before it answered")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health").is_success:
                return
        time.sleep(1.0)
    raise RuntimeError(f"vLLM did not answer within {START_SECONDS:.0f} s")
