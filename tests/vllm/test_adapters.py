"""Adapters on real vLLM servers: activated while the API answers, rolled back, and loaded again by
a replica that was restarted.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from shutil import copytree

import httpx
import pytest

from clients.python import MsrClient, ProblemError
from model_training.demo.world import write_files
from services.core.prompts import Messages
from services.core.records import UserId
from services.core.wire.recommend import RecommendResponse
from services.deployment.assemble import DEMO_WEIGHTS
from services.engines.checkpoints import identify
from services.engines.contract import EngineOptions
from services.engines.local.engine import LocalEngine
from services.engines.vllm_client.engine import VllmEngine
from services.process.announce import wait_until_listening
from services.state import keys
from services.state.user_store import Store
from tests.processes import msr, running
from tests.vllm.conftest import ADAPTER, BASE, ModelServer, StartModelServer
from tests.vllm.test_service import wait_until

pytestmark = pytest.mark.vllm

SFT = DEMO_WEIGHTS / "adapter-sft"
ITEMS = [f"item-{number:05d}" for number in range(20)]
USERS = [f"user-{number:05d}" for number in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the API finds adapters, and servers may load them from."""
    folder = tmp_path_factory.mktemp("adapters")
    copytree(ADAPTER, folder / "served")
    copytree(SFT, folder / "sft")
    return folder


@pytest.fixture(scope="module")
def replicas(start_model_server: StartModelServer, folder: Path) -> list[ModelServer]:
    """Two servers of the demo base and the shipped adapter, that load others; both come up at
    once.
    """
    options = {"adapter": f"demo-adapter={ADAPTER}", "load-adapters-from": str(folder)}
    return [start_model_server(**options) for _ in range(2)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, replicas: list[ModelServer]) -> str:
    """A small demo world; made while the servers come up."""
    world = tmp_path_factory.mktemp("world")
    write_files(world / "files", num_items=len(ITEMS), num_users=len(USERS))
    data = str(world / "data")
    msr("prepare-catalogue", "--catalogue", str(world / "files"), "--image-size", "56",
        "--data", data)  # fmt: skip
    msr("summarize-images", "--data", data)
    msr("build-preferences", "--data", data, "--cut", "none")
    return data


@contextmanager
def serving(redis_url: str, data: str, folder: Path, *replicas: ModelServer) -> Iterator[MsrClient]:
    urls = [part for replica in replicas for part in ("--url", replica.url)]
    with running(
        redis_url, "serve", "--data", data, "--port", "0", "--engine", "vllm", "--no-worker", *urls,
        MSR_ADAPTERS=str(folder),
    ) as server:  # fmt: skip
        assert server.stdout is not None
        url = wait_until_listening(server.stdout)
        assert url is not None
        with MsrClient(url, timeout_seconds=90) as client:
            yield client


def margins(answer: RecommendResponse) -> dict[tuple[str, str], float]:
    """(user, item) -> margin."""
    return {(answer.user_id, item.item_id): item.parts["margin"].value for item in answer.items}


def ask(client: MsrClient, user: str, items: list[str] = ITEMS) -> RecommendResponse:
    return client.recommend(
        user, candidates=items, k=len(items), mode="mllm", exclude_seen=False, timeout_seconds=60
    )


async def forget_scores(store: Store) -> None:
    for user in USERS:
        await store.connection.call("DEL", keys.scores(UserId(user)))


async def test_an_adapter_loaded_at_run_time_scores_as_it_does_locally(
    replicas: list[ModelServer], folder: Path, scoring_prompts: list[Messages]
):
    local = LocalEngine.load(BASE, str(SFT), device="cpu")
    expected = [await local.score(prompt) for prompt in scoring_prompts[:20]]
    await local.close()
    urls = [replica.url for replica in replicas]
    engine = await VllmEngine.connect(EngineOptions("demo", "demo-adapter", urls=urls))
    loaded = await engine.load_adapter(str(folder / "sft"))
    found = [await loaded.score(prompt) for prompt in scoring_prompts[:20]]
    await engine.unload_adapter(loaded)
    await engine.close()

    assert loaded.identity == identify(BASE, str(SFT))
    for one, other in zip(found, expected, strict=True):
        assert one.yes - one.no == pytest.approx(other.yes - other.no, abs=1e-4)


async def test_activating_and_rolling_back_under_load_fails_and_mixes_no_request(
    redis_url: str, data: str, folder: Path, replicas: list[ModelServer], store: Store
):
    alone: dict[str | None, dict[tuple[str, str], float]] = {}
    answers: list[RecommendResponse] = []
    with serving(redis_url, data, folder, *replicas) as client, ThreadPoolExecutor(4) as callers:
        for name in ("served", "sft"):
            client.activate_adapter(name)
            found = [margins(ask(client, user)) for user in USERS]
            alone[name] = {key: margin for each in found for key, margin in each.items()}
        for _ in range(4):
            await forget_scores(store)
            asked = [
                callers.submit(ask, client, user, ITEMS[first : first + 5])
                for first in range(0, len(ITEMS), 5)
                for user in USERS
            ]
            next(as_completed(asked))
            client.roll_back_adapter()
            answers += [each.result() for each in asked]  # raises for anything but 200

    assert min(abs(alone["served"][key] - alone["sft"][key]) for key in alone["served"]) > 1e-3
    assert {answer.adapter for answer in answers} == {"served", "sft"}
    for answer in answers:
        assert (answer.degraded, answer.num_cached) == (False, 0)
        expected = alone[answer.adapter]
        for key, margin in margins(answer).items():
            assert margin == pytest.approx(expected[key], abs=1e-4)


async def test_a_restarted_replica_and_a_restarted_api_get_the_activated_adapter_again(
    redis_url: str, data: str, folder: Path, replicas: list[ModelServer], store: Store,
    start_model_server: StartModelServer,
):  # fmt: skip
    with serving(redis_url, data, folder, replicas[0]) as client:
        client.activate_adapter("sft")
        before = margins(ask(client, USERS[0]))
        replicas[0].kill()
        assert ask(client, USERS[1]).degraded
        back = start_model_server(
            **{"adapter": f"demo-adapter={ADAPTER}", "load-adapters-from": str(folder)},
            port=replicas[0].port,
        )
        assert back.url
        wait_until(lambda: not ask(client, USERS[1]).degraded)
        assert ask(client, USERS[2]).adapter == "sft"

    await forget_scores(store)
    with serving(redis_url, data, folder, back) as restarted:
        answer = ask(restarted, USERS[0])
    assert answer.adapter == "sft"
    assert margins(answer) == pytest.approx(before, abs=1e-4)


@pytest.mark.usefixtures("store")
def test_a_server_without_the_option_to_load_adapters_is_refused_and_the_old_one_serves(
    redis_url: str, data: str, folder: Path, demo_server: ModelServer
):
    with serving(redis_url, data, folder, demo_server) as client:
        with pytest.raises(ProblemError) as refused:
            client.activate_adapter("sft")
        assert refused.value.problem.status == 409
        assert "--load-adapters-from" in refused.value.problem.detail
        # The server's own adapter lies in the folder under another name: it needs no loading.
        assert client.activate_adapter("served").active == "served"
        assert not ask(client, USERS[0]).degraded


def test_a_server_loads_from_its_folder_alone_and_only_what_belongs_to_it(
    replicas: list[ModelServer], folder: Path
):
    def load(path: str) -> httpx.Response:
        body = {"lora_name": "x", "lora_path": path}
        return httpx.post(f"{replicas[1].url}/v1/load_lora_adapter", json=body, timeout=60)

    bad = copytree(SFT, folder / "of-another-base")
    manifest = bad / "manifest.json"
    manifest.write_text(manifest.read_text().replace(identify(BASE).model, "another-base"))
    for path in (str(SFT), f"{folder}/sft/../../x", "some/hub-name", str(bad)):
        assert load(path).status_code == 400, path
    other_way = {"name": "x", "src": str(SFT)}
    assert httpx.post(f"{replicas[1].url}/adapters", json=other_way).status_code == 404
    listing = httpx.get(f"{replicas[1].url}/v1/models").json()
    assert "x" not in {entry["id"] for entry in listing["data"]}
