"""Real vLLM servers of the demo model, started as their users start them: by `msr serve-model`."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from random import Random

import httpx
import psutil
import pytest

from model_training.demo.sentences import preference_sentence, updated_preference
from model_training.demo.world import DEMO_SEED, IMAGE_SIZE, DemoWorld, draw_taste
from model_training.finetune import merge_adapter
from services.core.images import prepare_image
from services.core.prompts import Messages, scoring_messages
from services.core.records import Item, ItemId
from services.deployment.assemble import DEMO_WEIGHTS
from services.process.announce import wait_until_listening
from tests.processes import PATIENCE_SECONDS

BASE = str(DEMO_WEIGHTS / "base")
ADAPTER = str(DEMO_WEIGHTS / "adapter")
# Small, for several servers beside each other: 87,000 tokens of the demo model.
KV_CACHE_GB = "0.25"
_STARTED = pytest.StashKey[list["ModelServer"]]()


class ModelServer:
    """`msr serve-model` as a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self._log: deque[str] = deque(maxlen=400)
        self._first = ""
        self._logged = threading.Condition()
        self._url: str | None = None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", "serve-model", *arguments],
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    @property
    def url(self) -> str:
        """Where it listens; waits until it does."""
        if self._url is None:
            assert self.process.stdout is not None
            self._url = wait_until_listening(self.process.stdout)
        assert self._url is not None, f"no server:\n{self.log()}"
        return self._url

    def log(self) -> str:
        """The end of what it and vLLM have said."""
        with self._logged:
            return "".join(self._log)

    def first_line(self) -> str:
        """The first that it said."""
        self.wait_for_log("")
        return self._first

    def wait_for_log(self, text: str) -> None:
        """Wait until a line with this text has come."""
        with self._logged:
            said = self._logged.wait_for(
                lambda: any(text in line for line in self._log), PATIENCE_SECONDS
            )
        assert said, f"never said {text!r}:\n{self.log()}"

    def below(self) -> list[int]:
        """The numbers of every process below it: vLLM's, and their guard's."""
        return [each.pid for each in psutil.Process(self.process.pid).children(recursive=True)]

    @property
    def port(self) -> str:
        return self.url.rpartition(":")[2]

    def num_answered(self) -> float:
        """How many prompts it has answered, by its own count."""
        metrics = httpx.get(f"{self.url}/metrics").text.splitlines()
        counts = [line for line in metrics if line.startswith("vllm:request_success_total")]
        return sum(float(line.rpartition(" ")[2]) for line in counts)

    def kill(self) -> int:
        """SIGKILL all of vLLM's processes, as when memory runs out; the exit status."""
        for pid in self.below():
            with contextlib.suppress(ProcessLookupError):  # its guard has killed it by now
                os.kill(pid, signal.SIGKILL)
        return self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait()
        self._reader.join()
        return status

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._logged:
                self._first = self._first or line
                self._log.append(line)
                self._logged.notify_all()
        with self._logged:
            self._logged.notify_all()


def _environment() -> dict[str, str]:
    """Ours, but for what libraries that other tests import have set for a vLLM of their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}


StartModelServer = Callable[..., ModelServer]


@pytest.fixture(scope="session")
def start_model_server(request: pytest.FixtureRequest) -> Iterator[StartModelServer]:
    """Start a server with these options (`model=..., adapter=..., name=..., port=...`) and vLLM
    arguments; it comes up in the background, `.url` waits for it. Without others it serves the
    demo base as `demo`.
    """
    started = request.config.stash[_STARTED]

    def start(*vllm_arguments: str, **options: str) -> ModelServer:
        given = {"model": BASE, "name": "demo", "port": "0", "kv-cache-gb": KV_CACHE_GB} | options
        server = ModelServer(
            *(f"--{name}={value}" for name, value in given.items()), "--", *vllm_arguments
        )
        started.append(server)
        return server

    yield start
    for server in started:
        server.process.terminate()  # all at once: each takes seconds to end
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def demo_server(start_model_server: StartModelServer) -> ModelServer:
    """The demo base as `demo` with its adapter as `demo-adapter`, float32, for all tests."""
    return start_model_server(adapter=f"demo-adapter={ADAPTER}")


@pytest.fixture(scope="session")
def model_server(demo_server: ModelServer) -> str:
    """The base URL of `demo_server`."""
    return demo_server.url


@pytest.fixture(scope="session")
def merged(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the demo adapter merged into the demo base, in float32."""
    folder = str(tmp_path_factory.mktemp("merged") / "demo-merged")
    merge_adapter.run(BASE, ADAPTER, folder, dtype="float32")
    return folder


@pytest.fixture(scope="session")
def scoring_prompts() -> list[Messages]:
    """200 prompts: 40 items of the demo world, five tastes each."""
    world = DemoWorld(DEMO_SEED + 1, num_items=40, num_users=1)
    draw = Random(0)
    tastes = [preference_sentence(updated_preference({}, [draw_taste(draw)])) for _ in range(5)]
    return [
        scoring_messages(taste, Item(ItemId(each.item_id), each.title, cover))
        for each in world.items
        for cover in [prepare_image(each.cover_png(), IMAGE_SIZE)]
        for taste in tastes
    ]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STARTED] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the servers said beside what failed."""
    report = yield
    if report.failed:
        for number, server in enumerate(item.config.stash[_STARTED], start=1):
            report.sections.append((f"model server {number}", server.log()))
    return report
