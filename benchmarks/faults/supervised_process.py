"""Processes that a benchmark kills and starts again, each with a log of its own."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from services.process.announce import LISTENING
from services.process.http_server import reserved
from services.state.embedded_redis.server import server_binary

# The code under test is the one beside this file, whatever else is installed.
ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120.0
_POLL_SECONDS = 0.02
_PAUSE_SECONDS = 0.2
_LAST_LINES = 30
_RESERVED = ExitStack()


class SupervisedProcess:
    """One process. It must not end unless it is killed or stopped here."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        ready: str,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """It is ready once its log holds `ready`; `said` is then the rest of that line."""
        self.name = name
        self.said = ""
        self.num_kills = 0
        self._command = list(command)
        self._ready = ready
        self._log = folder / f"{name}.log"
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Return once it is ready; RuntimeError with the end of its log if it ends before."""
        if not await self._comes_up():
            raise RuntimeError(f"{self.name} does not start:\n{self.last_words()}")

    async def restart(self) -> None:
        """Kill it, then start it until it is ready: Redis, which it needs, may be down at first."""
        await self.kill()
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not await self._comes_up():
            if time.monotonic() > give_up:
                raise RuntimeError(f"{self.name} does not start again:\n{self.last_words()}")
            await asyncio.sleep(_PAUSE_SECONDS)

    async def kill(self) -> None:
        """Send SIGKILL. RuntimeError if it had ended by itself."""
        process = self._running()
        process.kill()
        self.num_kills += 1
        await asyncio.to_thread(process.wait)

    def freeze(self) -> None:
        """SIGSTOP: it accepts connections and never answers, until `thaw`."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._running().send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Send SIGTERM; RuntimeError if its exit status is not 0."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        if await asyncio.to_thread(process.wait, PATIENCE_SECONDS):
            raise RuntimeError(f"{self.name} ended with a failure:\n{self.last_words()}")

    def end(self) -> None:
        """Kill the process if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def log_counts(self, event: str) -> int:
        """How many log lines have this event."""
        return self._log.read_bytes().count(f'"event": "{event}"'.encode())

    @property
    def pid(self) -> int:
        """The running process's id; RuntimeError if it ended by itself."""
        return self._running().pid

    def last_words(self) -> str:
        """The end of its log."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(lines[-_LAST_LINES:])

    async def _comes_up(self) -> bool:
        with self._log.open("ab") as log:
            offset = log.tell()
            self._process = subprocess.Popen(  # noqa: ASYNC220 - takes a millisecond
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        while self._process.poll() is None:
            said = self._text(offset)
            if said is not None:
                self.said = said
                return True
            await asyncio.sleep(_POLL_SECONDS)
        return False

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            status = self._process.returncode if self._process else "never started"
            raise RuntimeError(f"{self.name} ended by itself ({status}):\n{self.last_words()}")
        return self._process

    def _text(self, offset: int) -> str | None:
        """What the log says after `ready` since `offset`, if that line is whole."""
        with self._log.open("rb") as log:
            log.seek(offset)
            _, found, rest = log.read().decode(errors="replace").partition(self._ready)
        line, whole, _ = rest.partition("\n")
        return line.strip() if found and whole else None


@contextmanager
def ended_after(programs: Sequence[SupervisedProcess]) -> Iterator[None]:
    """End the programs after the block; if it fails, say first what they logged last."""
    try:
        yield
    except BaseException:
        print_last_words(programs)
        raise
    finally:
        for program in programs:
            program.end()


def print_last_words(programs: Sequence[SupervisedProcess]) -> None:
    """The end of every log, to stderr."""
    for program in programs:
        print(f"--- {program.name}\n{program.last_words()}", file=sys.stderr)


def redis_server(folder: Path, port: int) -> SupervisedProcess:
    """A Redis on loopback with its data in `folder`, each write on disk before it is answered.

    So an acknowledged write survives SIGKILL and a power cut. With `appendfsync everysec` Redis
    answers while a second's writes are not synced (lost by a power cut), and while a sync takes
    long not even written (then lost by SIGKILL too): acknowledged interactions would be gone.
    """
    options = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "")
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    command = [server_binary(), *options, *durable, "--maxmemory-policy", "noeviction"]
    return SupervisedProcess("redis", command, ready="Ready to accept connections", folder=folder)


def api(data: Path, redis_url: str, folder: Path, **environment: str) -> SupervisedProcess:
    """`msr serve --no-worker` with the demo model, which ranks nothing here; `said` is its address,
    a new one each start.
    """
    serve = ("serve", "--no-worker", "--data", str(data), "--port", "0")
    engine = ("--engine", "local", "--adapter", "none")
    return SupervisedProcess(
        "api",
        [sys.executable, "-m", "services.cli", *serve, *engine],
        ready=LISTENING,
        folder=folder,
        environment={"REDIS_URL": redis_url, **environment},
    )


def worker(number: int, redis_url: str, folder: Path) -> SupervisedProcess:
    """A worker over the digest engine (worker.py)."""
    command = [sys.executable, "-m", "benchmarks.faults.worker", redis_url]
    return SupervisedProcess(f"worker-{number}", command, ready="worker_started", folder=folder)


def free_port() -> int:
    """A loopback port for programs that this process starts; nobody else gets it as long as this
    process lives.
    """
    return _RESERVED.enter_context(reserved("127.0.0.1", 0, remedy="another machine"))
