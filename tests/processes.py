"""Waiting for processes that are not children of the test run."""

import time

import psutil

# Only keeps a broken test from hanging.
PATIENCE_SECONDS = 300.0


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
