"""Does every model family go the whole road, and read token for token what its authors meant?

    msr bench families [--only NAME]... [--save]

A small checkpoint of each family (`benchmarks/families`) is encoded, scored, trained by three
stages, merged and served by a real vLLM on the CPU. Margins are float32.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from benchmarks.families.checkpoints import FAMILIES
from benchmarks.families.road import Outcome, prepare_data, travel
from benchmarks.support.runner import markdown

log = structlog.get_logger(__name__)

MARGINS_WITHIN = 1e-4
FAILED = "failed"
QUICK = ("--only", "qwen-2.5")


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """By family, the fields of `road.Outcome`, or FAILED with the error that ended its road."""
    names = _options(arguments).only or list(FAMILIES)
    outcomes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = await prepare_data(Path(folder))
        for name in names:
            try:
                outcomes[name] = (await travel(name, data, Path(folder) / name)).as_dict()
            except Exception as error:  # of whatever step; the figures of the others are kept
                log.exception("family_failed", family=name)
                outcomes[name] = {FAILED: f"{type(error).__name__}: {error}".splitlines()[0]}
    return outcomes


def holds(figures: dict[str, Any]) -> bool:
    """Whether every family that was tried went the whole road within the bars, or the part of it
    that this machine's vLLM can go.
    """
    return all(_holds(outcome) for outcome in figures.values())


def _holds(outcome: dict[str, Any]) -> bool:
    if FAILED in outcome:
        return False
    if outcome["margin_difference"] is None:  # no vLLM here
        outcome = {**outcome, "margin_difference": 0.0, "vllm": True, "adapter_on_vllm": True}
    checks = [value for value in outcome.values() if isinstance(value, bool)]
    return all(checks) and outcome["margin_difference"] <= MARGINS_WITHIN


def table(figures: dict[str, Any]) -> str:
    """One row a family."""
    fields = list(Outcome.__dataclass_fields__)
    rows = [
        (name, *(_shown(outcome.get(field, "")) for field in fields), outcome.get(FAILED, ""))
        for name, outcome in figures.items()
    ]
    return markdown(("family", *(field.replace("_", " ") for field in fields), FAILED), rows)


def _shown(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.1e}" if isinstance(value, float) else f"{value:,}"


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench families")
    parser.add_argument("--only", action="append", choices=FAMILIES, help="may be repeated")
    return parser.parse_args(arguments)
