"""The registry of a process's metrics.

A process has one registry (in tests, an application has one). API, worker and engine register their
metrics in it, so the API's /metrics shows a worker inside its process too.
"""

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

from services.telemetry import build

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def new_registry() -> CollectorRegistry:
    """With what is known of any process: build, CPU, memory and its limit, open files, start."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    Gauge(
        "msr_build_info",
        "Always 1; the labels name the version and the commit that run",
        ["version", "commit"],
        registry=registry,
    ).labels(build.version(), build.commit()).set(1)
    Gauge(
        "msr_memory_limit_bytes",
        "Memory that this process may use: its container's limit, or what the machine has",
        registry=registry,
    ).set(memory_limit_bytes())
    return registry


def memory_limit_bytes(cgroup_limit: Path = _CGROUP_LIMIT) -> int:
    """The container's limit; without one, the machine's memory."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = cgroup_limit.read_text(encoding="ascii").strip()
    except OSError:
        return machine
    return min(int(limit), machine) if limit.isdecimal() else machine
