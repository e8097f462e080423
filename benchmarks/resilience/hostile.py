"""Does a hostile image crash, hang or bloat anything, and is a hostile address ever fetched?

    msr bench hostile [--images 500]

500 images (attacks/images.py) go through `PUT /items` of an API process and through
`msr prepare-catalogue`. Both must prepare or refuse the same ones, each refusal with a reason, and
no process may grow beyond a bound. 60 addresses (attacks/urls.py) go through the fetcher on a
made-up network: none may reach the server inside it.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.attacks import images, url_attack_run, urls
from benchmarks.attacks.hostile_image import HostileImage
from benchmarks.attacks.image_attack_run import AttackOutcomes, disagreements, prepare_all, put_all
from benchmarks.support.runner import markdown

# One large image decoded (400 MB), two request bodies in base64, JSON and bytes, and what the
# allocator keeps.
BOUND_BYTES = 768 * 1024 * 1024
QUICK = ("--images", "30")


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """How many were accepted, refused and at fault; how far memory grew; how many were reached."""
    corpus: Sequence[HostileImage] = images.corpus()
    num_taken = _options(arguments).images
    # Evenly from the whole corpus; with all of it, also those that take seconds each.
    if num_taken < len(corpus):
        light = [each for each in corpus if not each.heavy]
        corpus = light[:: -(-len(light) // num_taken)]
    with tempfile.TemporaryDirectory() as name:
        online = await put_all(corpus, Path(name))
        offline = await asyncio.to_thread(prepare_all, corpus, Path(name))
    reached = await url_attack_run.try_all(urls.corpus())
    return {
        "images": len(corpus),
        "api": _figures(online),
        "batch": _figures(offline),
        "disagreements": sorted(disagreements(online, offline)),
        "slowest_answer_seconds": round(online.slowest_seconds, 1),
        "urls": len(reached),
        "urls_fetched": sorted(name for name, each in reached.items() if not _is_refused(each)),
    }


def holds(figures: dict[str, Any]) -> bool:
    """Whether nothing crashed, hung or grew, both ways decided alike, and nothing was fetched."""
    return not (
        figures["disagreements"] or figures["urls_fetched"] or any(_faults(figures))
    ) and all(figures[way]["grown_bytes"] <= BOUND_BYTES for way in ("api", "batch"))


def table(figures: dict[str, Any]) -> str:
    """One row a way in."""
    rows = [
        (
            name,
            figures["images"],
            figures[way]["accepted"],
            figures[way]["refused"],
            len(figures[way]["faults"]),
            f"{figures[way]['grown_bytes'] / 2**20:.0f} MiB",
        )
        for name, way in (("images, PUT /items", "api"), ("images, prepare-catalogue", "batch"))
    ]
    num_fetched = len(figures["urls_fetched"])
    rows.append(("addresses", figures["urls"], 0, figures["urls"] - num_fetched, num_fetched, "-"))
    header = ("hostile", "number", "prepared", "refused with a reason", "faults", "memory grew")
    bound = f"Bounds: no fault, {BOUND_BYTES // 2**20} MiB; both ways decide alike"
    differ = len(figures["disagreements"])
    return f"{markdown(header, rows)}\n\n{bound} (they differ on {differ})."


def _figures(outcomes: AttackOutcomes) -> dict[str, Any]:
    return {
        "accepted": len(outcomes.accepted),
        "refused": len(outcomes.refused),
        "faults": outcomes.faults,
        "grown_bytes": outcomes.grown_bytes,
    }


def _faults(figures: dict[str, Any]) -> list[bool]:
    """Of each way: a fault, or images of which nothing is known."""
    return [
        bool(figures[way]["faults"])
        or figures[way]["accepted"] + figures[way]["refused"] != figures["images"]
        for way in ("api", "batch")
    ]


def _is_refused(reached: url_attack_run.Reached) -> bool:
    return bool(reached.refusal) and not reached.num_inside and reached.fetched is None


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench hostile")
    parser.add_argument("--images", type=int, default=images.NUM_IMAGES, help="of the corpus")
    return parser.parse_args(arguments)
