"""The whole service on vLLM: the offline steps, the API, the worker, and two replicas of which one
is lost under load.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from shutil import copytree

import pytest

from benchmarks.support.msr_process import digest_tree
from clients.python import MsrClient
from model_training.demo.world import write_files
from services.core.wire.interactions import InteractionIn
from services.core.wire.recommend import RecommendResponse
from services.process.announce import wait_until_listening
from tests.processes import PATIENCE_SECONDS, msr, running
from tests.vllm.conftest import ADAPTER, ModelServer, StartModelServer

pytestmark = pytest.mark.vllm

NUM_ITEMS = 60
NUM_USERS = 40
NUM_CALLERS = 6


@contextmanager
def serving(redis_url: str, data: str, *urls: str) -> Iterator[MsrClient]:
    """A client of `msr serve` on these model servers."""
    with running(
        redis_url, "serve", "--data", data, "--port", "0", "--engine", "vllm", "--no-worker", *urls
    ) as server:
        assert server.stdout is not None
        url = wait_until_listening(server.stdout)
        assert url is not None
        with MsrClient(url, timeout_seconds=90) as client:
            yield client


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, demo_server: ModelServer) -> Path:
    """A small demo world; made while the model server comes up."""
    folder = tmp_path_factory.mktemp("service")
    write_files(folder / "world", num_items=NUM_ITEMS, num_users=NUM_USERS)
    msr("prepare-catalogue", "--catalogue", str(folder / "world"), "--image-size", "56",
        "--data", str(folder / "data"))  # fmt: skip
    return folder / "data"


@pytest.fixture(scope="module")
def data(prepared: Path, model_server: str) -> str:
    """Its summaries and preferences, written through vLLM."""
    engine = ("--engine", "vllm", "--url", model_server, "--data", str(prepared))
    before = copytree(prepared, prepared.with_name("before"))
    assert not (before / "summaries").exists()
    msr("summarize-images", *engine)
    msr("build-preferences", *engine)
    return str(prepared)


def test_the_offline_steps_write_on_vllm_what_they_write_locally(data: str, tmp_path: Path):
    local = str(copytree(Path(data).with_name("before"), tmp_path / "local"))
    msr("summarize-images", "--data", local)
    msr("build-preferences", "--data", local)

    written = digest_tree(Path(data))
    assert written == digest_tree(Path(local))
    assert {Path(path).parts[0] for path in written} >= {"summaries", "preferences"}


@pytest.mark.usefixtures("store")
def test_an_interaction_is_covered_and_a_ranking_scored_by_vllm(
    data: str, redis_url: str, model_server: str
):
    worker = ("worker", "--data", data, "--engine", "vllm", "--url", model_server)
    with running(redis_url, *worker), serving(redis_url, data, "--url", model_server) as client:
        taken = [InteractionIn(user_id="new", item_id=f"item-{n:05d}") for n in range(3)]
        version = client.interact(*taken).versions["new"]
        preference = client.wait_for_version("new", version, timeout_seconds=PATIENCE_SECONDS)
        ranking = client.recommend("new", k=5, timeout_seconds=60)

    assert preference.preference.startswith("Likes ")
    assert [item.scored_by for item in ranking.items] == ["mllm"] * 5
    assert not ranking.degraded


@pytest.fixture
def replica(start_model_server: StartModelServer, demo_server: ModelServer) -> ModelServer:
    """A second server of what the first one serves; both come up at once."""
    return start_model_server(adapter=f"demo-adapter={ADAPTER}")


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(NUM_CALLERS) as pool:
        yield pool


@pytest.mark.usefixtures("store")
def test_a_replica_lost_under_load_fails_no_request_and_works_again_when_it_is_back(
    data: str,
    redis_url: str,
    model_server: str,
    replica: ModelServer,
    callers: ThreadPoolExecutor,
    start_model_server: StartModelServer,
):
    with serving(redis_url, data, "--url", model_server, "--url", replica.url) as client:
        ask = partial(ask_for_rankings, callers, client, unlike_requests())
        fresh = replica.num_answered()

        asked = ask(80)
        for answered in islice(as_completed(asked), 20):
            answered.result()
        assert replica.num_answered() > fresh, "the load never reached the replica"
        assert replica.kill() != 0
        for each in asked:
            each.result()  # raises for anything but 200

        after = [each.result() for each in ask(60)]
        assert not [answer.reason for answer in after if answer.degraded]

        back = start_model_server(adapter=f"demo-adapter={ADAPTER}", port=replica.port)
        fresh = back.num_answered()
        wait_until(lambda: all(e.result() for e in ask(6)) and back.num_answered() > fresh)


def ask_for_rankings(
    callers: ThreadPoolExecutor,
    client: MsrClient,
    requests: Iterator[tuple[str, list[str]]],
    number: int,
) -> list["Future[RecommendResponse]"]:
    """Send this many requests, NUM_CALLERS at a time."""
    return [
        callers.submit(
            client.recommend, user_id, candidates=items, exclude_seen=False, timeout_seconds=60
        )
        for user_id, items in islice(requests, number)
    ]


def unlike_requests() -> Iterator[tuple[str, list[str]]]:
    """(user, five candidates), in no order; no pair comes twice, so no score is in the cache."""
    requests = [
        (f"user-{user:05d}", [f"item-{item:05d}" for item in range(first, first + 5)])
        for user in range(NUM_USERS)
        for first in range(0, NUM_ITEMS, 5)
    ]
    Random(7).shuffle(requests)
    return iter(requests)


def wait_until(condition: Callable[[], bool]) -> None:
    """Look again and again; the limit only keeps a broken test from hanging."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.1)
