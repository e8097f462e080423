"""Runs `msr` as a user does, in processes of its own, and watches their time and memory."""

import contextlib
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.process.announce import wait_until_listening

MSR = (sys.executable, "-m", "services.cli")


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended well: its JSON result, wall seconds and peak memory in bytes."""

    result: dict[str, Any]
    seconds: float
    peak_bytes: int


def msr(*arguments: str) -> Finished:
    """Run a command with --json to its end; RuntimeError with its stderr if it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [*MSR, *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    errors: list[str] = []
    assert process.stdout is not None
    assert process.stderr is not None
    reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()))
    reader.start()
    output = process.stdout.read()
    reader.join()
    # wait4 tells this child's own peak; getrusage(RUSAGE_CHILDREN) would tell the largest of all.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"msr {' '.join(arguments)} failed:\n{''.join(errors)[-4000:]}")
    result = json.loads(output.strip().splitlines()[-1])
    return Finished(result, time.perf_counter() - started, peak_bytes(usage))


def msr_killed(after_seconds: float, *arguments: str) -> bool:
    """Start a command and kill it by SIGKILL; whether it was still running then."""
    process = subprocess.Popen(
        [*MSR, *arguments, "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(after_seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def digest_tree(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder, by its path in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def killed_and_resumed(
    step: Sequence[str], whole_seconds: float, draw: random.Random
) -> tuple[Finished, bool]:
    """Kill a step at a random moment of its usual time, then run it to its end."""
    was_running = msr_killed(draw.uniform(0.1, 0.95) * whole_seconds, *step)
    return msr(*step), was_running


def peak_bytes(usage: resource.struct_rusage) -> int:
    """Peak resident memory of a waited-for process: Linux counts KiB, macOS bytes."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident_bytes() -> int:
    """What this process holds in memory now (Linux)."""
    num_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return num_pages * resource.getpagesize()


@contextlib.contextmanager
def serving(data: Path, *arguments: str) -> Iterator[str]:
    """`msr serve` on a free port, as the base URL; ended by SIGTERM after."""
    with _listening("serve", "--data", str(data), "--port", "0", *arguments) as url:
        yield url


@contextlib.contextmanager
def serving_model(model: Path, *arguments: str) -> Iterator[str]:
    """`msr serve-model` on a free port, as the base URL; ended by SIGTERM after."""
    with _listening("serve-model", "--model", str(model), "--port", "0", *arguments) as url:
        yield url


@contextlib.contextmanager
def _listening(*command: str) -> Iterator[str]:
    """A server program from when it listens; RuntimeError with its last words if it never does."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*MSR, *command], stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            assert process.stdout is not None
            url = wait_until_listening(process.stdout)
            if url is None:
                status = process.wait()
                errors.seek(0)
                raise RuntimeError(
                    f"msr {' '.join(command)} ended with {status} before it listened:\n"
                    f"{errors.read()[-4000:]}"
                )
            yield url
        finally:
            process.terminate()
            process.wait()
