"""A real vLLM server that can be killed, frozen and slowed down: every process of it."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from benchmarks.faults.supervised_process import SupervisedProcess, free_port
from services.process.announce import LISTENING

NAME = "demo-merged"
# 87,000 tokens of the demo model.
KV_CACHE_GB = "0.25"
NICENESS = "10"
# Ten times slower: it runs this long of every period.
RUN_SECONDS = 0.01
PERIOD_SECONDS = 0.1


class ModelServer(SupervisedProcess):
    """`msr serve-model` of a merged checkpoint, on the same port each start; `said` is its URL.

    In production it has a machine of its own. Here it yields to the API, whose deadlines would
    otherwise be measured on a machine that does nothing but compute the model.
    """

    def __init__(self, checkpoint: Path, folder: Path, name: str = "model") -> None:
        """Its log goes into the folder."""
        nice = [shutil.which("nice") or "nice", "-n", NICENESS]
        serve = [*nice, sys.executable, "-m", "services.cli", "serve-model"]
        options = ["--model", str(checkpoint), "--name", NAME, "--port", str(free_port())]
        super().__init__(
            name,
            [*serve, *options, "--kv-cache-gb", KV_CACHE_GB],
            ready=LISTENING,
            folder=folder,
        )

    def signal_all(self, number: int) -> None:
        """To every process of vLLM; not to the guard that ends them when we do."""
        for pid in self._below():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP: it accepts connections and never answers, until the block ends."""
        self.signal_all(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal_all(signal.SIGCONT)

    @asynccontextmanager
    async def slowed_down(self) -> AsyncIterator[None]:
        """Run for a tenth of the time."""
        slowing = asyncio.create_task(self._slow_down())
        try:
            yield
        finally:
            slowing.cancel()
            await asyncio.wait([slowing])

    async def _slow_down(self) -> None:
        try:
            while True:
                self.signal_all(signal.SIGSTOP)
                await asyncio.sleep(PERIOD_SECONDS - RUN_SECONDS)
                self.signal_all(signal.SIGCONT)
                await asyncio.sleep(RUN_SECONDS)
        finally:
            self.signal_all(signal.SIGCONT)

    def _below(self) -> list[int]:
        found, waiting = [], [self.pid]
        while waiting:
            children = _children(waiting.pop())
            waiting += children
            found += [pid for pid in children if not _is_guard(pid)]
        return found


def _children(pid: int) -> list[int]:
    with suppress(OSError):  # it ended meanwhile
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(each) for task in tasks for each in (task / "children").read_text().split()]
    return []


def _is_guard(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip() == "sh"
    return False
