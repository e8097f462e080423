"""Does the demo's walk hold, and how long until the first recommendation?

    msr bench walk [--work FOLDER]

Runs `msr demo --once` twice on one data folder: the first start prepares everything, the second
finds it. What `make demo` adds on a fresh clone is the installation.
"""

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.support.msr_process import MSR, peak_bytes
from benchmarks.support.runner import markdown
from services.deployment.demo_walk import TOP

QUICK = ("--starts", "1")


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Seconds and peak memory of the first and the second start, and whether the walk held."""
    parser = argparse.ArgumentParser(prog="msr bench walk")
    parser.add_argument("--work", help="where the data folder is while it runs")
    parser.add_argument("--starts", type=int, choices=(1, 2), default=2)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.work) as data:
        return {start: _walk(data) for start in ("first", "second")[: options.starts]}


def table(figures: dict[str, Any]) -> str:
    """One row a start."""
    header = ("start", "held", "seconds to first recommendation", "seconds", "peak GB")
    return markdown(header, [(name, *row.values()) for name, row in figures.items()])


def _walk(data: str) -> dict[str, Any]:
    started = time.perf_counter()
    first_recommendation = float("nan")
    process = subprocess.Popen(
        [*MSR, "demo", "--data", data, "--port", "0", "--once"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"Top {TOP}"):
            first_recommendation = time.perf_counter() - started
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "held": process.returncode == 0,
        "seconds_to_first_recommendation": round(first_recommendation, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "peak_gb": round(peak_bytes(usage) / 1e9, 2),
    }
