"""`msr serve` and `msr worker` as an operator runs them: apart, with metrics, traces and logs."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from clients.python import MsrClient
from model_training.demo.world import write_files
from services.core.wire.interactions import InteractionIn
from services.deployment.assemble import DEMO_WEIGHTS
from services.state.embedded_redis.server import EmbeddedRedis
from tests.operations.collector import Collector, collecting
from tests.processes import PATIENCE_SECONDS, msr, program

NUM_ITEMS, NUM_USERS = 40, 12
REQUEST_ID = "from-a-browser-1"
TRACE_ID, CALLER_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{CALLER_SPAN}-01"


@dataclass(frozen=True)
class Service:
    """Where the two programs answer and write, and where their traces went."""

    api_url: str
    worker_url: str
    api_log: Path
    worker_log: Path
    collector: Collector

    def metrics(self) -> dict[str, str]:
        """The text of each program's /metrics, by Prometheus' job."""
        urls = {"msr-api": self.api_url, "msr-worker": self.worker_url}
        return {job: httpx.get(f"{url}/metrics").text for job, url in urls.items()}


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small demo world with everybody's preferences."""
    folder = tmp_path_factory.mktemp("operations")
    write_files(folder / "world", num_items=NUM_ITEMS, num_users=NUM_USERS)
    data = str(folder / "data")
    msr("prepare-catalogue", "--catalogue", str(folder / "world"), "--image-size", "56",
        "--data", data)  # fmt: skip
    msr("summarize-images", "--data", data)
    msr("build-preferences", "--data", data, "--cut", "none")
    return data


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo adapter as a training of today would leave it: with its validation scores."""
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    shutil.copytree(DEMO_WEIGHTS / "adapter", folder)
    manifest = folder / "manifest.json"
    spread = {"edges": [0.01, 0.05, 0.2], "counts": [600, 200, 100, 100]}
    content = json.loads(manifest.read_text()) | {"validation_scores": spread}
    manifest.write_text(json.dumps(content))
    return str(folder)


@pytest.fixture(scope="session")
def service(
    demo_data: str, adapter: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Both programs, after a call of every kind."""
    folder = tmp_path_factory.mktemp("service")
    redis = EmbeddedRedis(folder / "redis")
    with ExitStack() as stack:
        collector = stack.enter_context(collecting())
        stack.callback(redis.stop)
        environment = os.environ | {
            "REDIS_URL": redis.start(),
            "MSR_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "MSR_WORKER_PORT": "0",
        }
        model = ("--data", demo_data, "--adapter", adapter)
        api = program(folder / "api.log", environment, "serve", "--port", "0", *model)
        worker = program(folder / "worker.log", environment, "worker", *model)
        service = Service(
            api_url=stack.enter_context(api),
            worker_url=stack.enter_context(worker),
            api_log=folder / "api.log",
            worker_log=folder / "worker.log",
            collector=collector,
        )
        use(service)
        yield service


def use(service: Service) -> None:
    """Calls of every kind: taken in, updated, put, ranked, refused."""
    asked = {"user_id": "new", "timeout_seconds": 60, "k": 5}
    headers = {"X-Request-Id": REQUEST_ID, "traceparent": TRACEPARENT}
    with (
        httpx.Client(base_url=service.api_url, timeout=90) as http,
        MsrClient(service.api_url, timeout_seconds=90) as client,
    ):
        taken = [{"user_id": "new", "item_id": f"item-{n:05d}"} for n in range(3)]
        answer = http.post("/interactions", json={"interactions": taken}, headers=headers)
        version = answer.raise_for_status().json()["versions"]["new"]
        client.wait_for_version("new", version, timeout_seconds=PATIENCE_SECONDS)
        http.post("/recommend", json=asked, headers=headers).raise_for_status()
        http.post("/recommend", json=asked).raise_for_status()  # from the cache
        http.put("/items", json={"item_id": "added", "title": "a calm fox"}).raise_for_status()
        http.post("/recommend", json={}).status_code  # noqa: B018 - refused
        client.interact(InteractionIn(user_id="new", item_id="nowhere"))
        for user in range(NUM_USERS):  # scores enough for a drift
            client.recommend(f"user-{user:05d}", mode="mllm", timeout_seconds=60,
                             candidates=[f"item-{n:05d}" for n in range(25)],
                             exclude_seen=False)  # fmt: skip
        drop_a_deadline = {"user_id": "someone", "timeout_seconds": 0.05, "mode": "mllm"}
        http.post("/recommend", json=drop_a_deadline).raise_for_status()
