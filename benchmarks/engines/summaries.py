"""What does it take to describe 24 images in 100 tokens each, against the reference loop?

    msr bench summaries [--rounds 3] [--images 24] [--tokens 100] [--gpu]

The same checkpoint on both sides (33 million random parameters): the reference loop in float32 and
batches of 8, vLLM (bfloat16 where the processor has it) with all in flight. Every round has new
images. That each answer has its tokens is checked on both sides. `--gpu` measures the 7B shape
instead (`gpu.py`).
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
from benchmarks.support.reference_loop import SUMMARY_BATCH, ReferenceLoop
from benchmarks.support.served_model import ServedModel, generate_all, serve
from benchmarks.support.synthetic_catalogue import draw_items
from services.core.prompts import GenerationLimits, Messages, summary_messages

NUM_IMAGES = 24
NUM_TOKENS = 100
BAR = 2.2

QUICK = (*paired_rounds.QUICK, "--images", "4", "--tokens", "10")


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """The ratio, both sides' seconds and the spread."""
    options = _options(arguments)
    if options.gpu:
        return await gpu.measure_summaries()
    rounds = Rounds("summaries", settle_seconds=options.settle_seconds)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(Path(folder) / "checkpoint", SHAPES[options.model])
        reference = ReferenceLoop(checkpoint)
        async with serve(checkpoint) as model:
            reference.summarize(draw_items("warm up", SUMMARY_BATCH), 1)
            await generate_all(
                model, _draw_prompts("warm up too", 1), GenerationLimits(options.tokens)
            )
            for number in range(options.rounds):
                await _run_round(rounds, reference, model, number, options)
    measured = {"summaries": rounds.judge(Claim("summaries", "reference", BAR))}
    return {
        "summaries": measured["summaries"]["ratio"],
        "images": options.images,
        "tokens": options.tokens,
        "measured": measured,
    }


def table(figures: dict[str, Any]) -> str:
    """One row."""
    if "gpu" in figures:
        return gpu.table(figures)
    name = f"{figures['images']} summaries of {figures['tokens']} tokens"
    return comparison_table(figures["measured"], {"summaries": name})


async def _run_round(
    rounds: Rounds,
    reference: ReferenceLoop,
    model: ServedModel,
    number: int,
    options: argparse.Namespace,
) -> None:
    items = draw_items(f"loop {number}", options.images)
    num_tokens = options.images * options.tokens
    written = await rounds.time(
        "reference", lambda: asyncio.to_thread(reference.summarize, items, options.tokens)
    )
    if written != num_tokens:
        raise RuntimeError(f"the reference loop wrote {written} tokens")
    prompts = _draw_prompts(f"engine {number}", options.images)
    async with model.writing(num_tokens):
        limits = GenerationLimits(options.tokens)
        await rounds.time("summaries", lambda: generate_all(model, prompts, limits))


def _draw_prompts(name: str, num_items: int) -> list[Messages]:
    return [summary_messages(item) for item in draw_items(name, num_items)]


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench summaries")
    add_options(parser, rounds=3)
    parser.add_argument("--images", type=int, default=NUM_IMAGES, help="described in a round")
    parser.add_argument("--tokens", type=int, default=NUM_TOKENS, help="of each answer")
    parser.add_argument("--gpu", action="store_true", help="measure the 7B shape on this GPU")
    return parser.parse_args(arguments)
