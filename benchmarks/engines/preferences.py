"""What does it take to carry 48 users' preferences one block forward, against the reference loop?

    msr bench preferences [--rounds 4] [--tokens 100] [--gpu]

The same checkpoint on both sides (33 million random parameters): the reference loop in float32, one
user after the other, vLLM (bfloat16 where the processor has it) with a wave of 48 in flight. A
prompt holds the previous preference and a block of 3 items with their summaries; the answer has 100
tokens, which is checked on both sides. The loop works on 8 users a round, and its seconds count six
times: it keeps nothing between users. `--gpu` measures the 7B shape instead (`gpu.py`).
"""

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.support import gpu, paired_rounds
from benchmarks.support.paired_rounds import Claim, Rounds, add_options, comparison_table
from benchmarks.support.random_model import SHAPES, write_checkpoint
from benchmarks.support.reference_loop import ReferenceLoop
from benchmarks.support.served_model import ServedModel, generate_all, serve
from benchmarks.support.synthetic_catalogue import draw_preference_prompts
from services.core.prompts import GenerationLimits

NUM_USERS = 48
NUM_REFERENCE_USERS = 8
NUM_TOKENS = 100
BAR = 12.0

QUICK = (*paired_rounds.QUICK, "--tokens", "10")


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """The ratio, both sides' seconds and the spread."""
    options = _options(arguments)
    if options.gpu:
        return await gpu.measure_preferences()
    rounds = Rounds("preferences", settle_seconds=options.settle_seconds)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(Path(folder) / "checkpoint", SHAPES[options.model])
        reference = ReferenceLoop(checkpoint)
        async with serve(checkpoint) as model:
            reference.write_preferences(draw_preference_prompts("warm up", 1), options.tokens)
            await generate_all(
                model,
                draw_preference_prompts("warm up too", NUM_USERS),
                GenerationLimits(options.tokens),
            )
            for number in range(options.rounds):
                await _run_round(rounds, reference, model, number, options.tokens)
    claim = Claim("preferences", "reference", BAR, share=NUM_USERS / NUM_REFERENCE_USERS)
    measured = {"preferences": rounds.judge(claim)}
    return {
        "preferences": measured["preferences"]["ratio"],
        "tokens": options.tokens,
        "measured": measured,
    }


def table(figures: dict[str, Any]) -> str:
    """One row."""
    if "gpu" in figures:
        return gpu.table(figures)
    name = f"{NUM_USERS} preferences of {figures['tokens']} tokens"
    return comparison_table(figures["measured"], {"preferences": name})


async def _run_round(
    rounds: Rounds, reference: ReferenceLoop, model: ServedModel, number: int, num_tokens: int
) -> None:
    few = draw_preference_prompts(f"loop {number}", NUM_REFERENCE_USERS)
    wave = draw_preference_prompts(f"engine {number}", NUM_USERS)
    written = await rounds.time(
        "reference", lambda: asyncio.to_thread(reference.write_preferences, few, num_tokens)
    )
    if written != NUM_REFERENCE_USERS * num_tokens:
        raise RuntimeError(f"the reference loop wrote {written} tokens")
    async with model.writing(NUM_USERS * num_tokens):
        limits = GenerationLimits(num_tokens)
        await rounds.time("preferences", lambda: generate_all(model, wave, limits))


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench preferences")
    add_options(parser, rounds=4)
    parser.add_argument("--tokens", type=int, default=NUM_TOKENS, help="of each answer")
    parser.add_argument("--gpu", action="store_true", help="measure the 7B shape on this GPU")
    return parser.parse_args(arguments)
