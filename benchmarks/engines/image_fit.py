"""How many pixels of a cover does a model see for each image token, by `--fit grid` and `square`?

    msr bench image-fit [--covers N] [--only NAME]... [--save]

N covers of mixed kinds, drawn from a seed, are fitted by both, at the same `--image-size`. Counted
are the pixels of the prepared image that show the cover: without padding, never more than the cover
has itself, and once, although LLaVA-NeXT shows them again in an overview. Tokens are counted in
prompts, by the processor of a checkpoint that has its family's own image grid
(`benchmarks/families`).
"""

import argparse
from collections.abc import Sequence
from random import Random
from typing import Any

from benchmarks.families.checkpoints import FAMILIES, build_processor
from benchmarks.support.runner import markdown
from services.core.images import ImageShape
from services.engines.models.image_shapes import count_tokens, form_of
from services.engines.prompt_encoding import PromptEncoder

QUICK = ("--covers", "50", "--only", "mistral")
BAR = 1.4
BARRED = "mistral"  # LLaVA-NeXT, whose figures the bar is for
NAMES = {
    "mistral": "LLaVA-NeXT",
    "onevision": "LLaVA-OneVision",
    "qwen-2.5": "Qwen2.5-VL",
    "qwen-3": "Qwen3-VL",
    "internvl-3": "InternVL3",
    "gemma-3": "Gemma 3",
    "mistral-3": "Mistral-Small 3.1",
    "pixtral": "Pixtral",
    "smolvlm": "SmolVLM",
}
# Width to height, and the share of each kind among the covers.
KINDS = {
    "poster 2:3": (2 / 3, 0.25),
    "book 3:4": (3 / 4, 0.2),
    "square": (1.0, 0.2),
    "photograph 4:3": (4 / 3, 0.15),
    "screen 16:9": (16 / 9, 0.1),
    "telephone 9:19.5": (9 / 19.5, 0.05),
    "banner 3:1": (3.0, 0.05),
}
LONGER_SIDES = (300, 1600)
UNEVEN = 0.05  # by which a cover's ratio differs from that of its kind

Cover = tuple[int, int]  # width, height


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """By family: side, shapes, and for square and grid the mean tokens of a cover and the content
    pixels for each; `gain` is the ratio of the latter.
    """
    options = _options(arguments)
    covers = draw_covers(options.covers)
    found = {name: _measure(name, covers) for name in options.only or NAMES}
    return {"covers": options.covers, "families": found}


def draw_covers(number: int) -> list[Cover]:
    """Widths and heights."""
    random = Random("covers of mixed shapes")
    shares = [share for _, share in KINDS.values()]
    covers = []
    for kind in random.choices(list(KINDS), shares, k=number):
        ratio = KINDS[kind][0]
        if kind != "square":
            ratio *= random.uniform(1 - UNEVEN, 1 + UNEVEN)
        longer = random.randint(*LONGER_SIDES)
        size = (longer, longer / ratio) if ratio >= 1 else (longer * ratio, longer)
        covers.append((round(size[0]), round(size[1])))
    return covers


def _measure(name: str, covers: Sequence[Cover]) -> dict[str, Any]:
    processor = build_processor(name)
    grid = form_of(processor, FAMILIES[name].config(processor.tokenizer), None)
    side = (grid.size, grid.size)
    square = ImageShape(*side, count_tokens(PromptEncoder(processor), side))
    by_size = {(each.height, each.width): each for each in grid.shapes}
    fitted = [by_size[grid.shape_for(*cover)] for cover in covers]
    sides = {"square": [square] * len(covers), "grid": fitted}
    measured = {fit: _totals(shapes, covers) for fit, shapes in sides.items()}
    return {
        "side": grid.size,
        "shapes": len(grid.shapes),
        "used": len(set(fitted)),
        **measured,
        "gain": measured["grid"]["pixels_per_token"] / measured["square"]["pixels_per_token"],
    }


def _totals(shapes: Sequence[ImageShape], covers: Sequence[Cover]) -> dict[str, float]:
    num_tokens = sum(shape.num_tokens for shape in shapes)
    pixels = sum(shape.content_pixels(*cover) for shape, cover in zip(shapes, covers, strict=True))
    return {"tokens": num_tokens / len(covers), "pixels_per_token": pixels / num_tokens}


def holds(figures: dict[str, Any]) -> bool:
    """Whether LLaVA-NeXT gains what it must, and no family loses."""
    families = figures["families"]
    gains = {name: family["gain"] for name, family in families.items()}
    return bool(min(gains.values()) >= 1.0 and gains.get(BARRED, BAR) >= BAR)


def table(figures: dict[str, Any]) -> str:
    """One row a family."""
    rows = [
        (
            NAMES[name],
            each["side"],
            f"{each['used']} of {each['shapes']}",
            *(
                f"{each[fit][figure]:,.0f}"
                for figure in ("tokens", "pixels_per_token")
                for fit in ("square", "grid")
            ),
            f"{each['gain']:.2f}",
        )
        for name, each in figures["families"].items()
    ]
    header = (
        "family",
        "image size",
        "shapes used",
        "tokens, square",
        "tokens, grid",
        "pixels a token, square",
        "pixels a token, grid",
        "gain",
    )
    title = f"{figures['covers']:,} covers; bar for {NAMES[BARRED]}: {BAR}."
    return f"{title}\n\n{markdown(header, rows)}"


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench image-fit")
    parser.add_argument("--covers", type=int, default=1_000)
    parser.add_argument("--only", action="append", choices=NAMES, help="may be repeated")
    return parser.parse_args(arguments)
