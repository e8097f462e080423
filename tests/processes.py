"""Programs as their users start them, and waiting for processes that they leave."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from services.process.announce import wait_until_listening

# Only keeps a broken test from hanging.
PATIENCE_SECONDS = 300.0


def msr(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "services.cli", *arguments], check=True)


def msr_says(*arguments: str) -> str:
    """What a command prints on stdout."""
    command = [sys.executable, "-m", "services.cli", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def running(redis_url: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A program on this Redis, ended by SIGTERM; it must end well."""
    process = subprocess.Popen(
        [sys.executable, "-m", "services.cli", *arguments],
        env=os.environ | {"REDIS_URL": redis_url} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


@contextmanager
def program(log: Path, environment: Mapping[str, str], *arguments: str) -> Iterator[str]:
    """A program as the URL at which it listens; it must end well. Its log is told if not."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            assert process.stdout is not None
            url = wait_until_listening(process.stdout)
            assert url is not None, log.read_text()
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(PATIENCE_SECONDS)
            assert status == 0, log.read_text()


def wait_until_gone(pids: list[int]) -> None:
    """Wait until they have ended; a zombie that nobody collects has."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while left := [pid for pid in pids if _is_alive(pid)]:
        assert time.monotonic() < give_up, f"left behind: {left}"
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
