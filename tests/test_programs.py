"""The programs as their users start them: `msr serve` and `msr worker`, apart, on one Redis."""

import json
import subprocess
import time
from pathlib import Path
from shutil import copytree

import pytest

from clients.python import MsrClient, ProblemError
from model_training.demo.world import write_files
from services.core.wire.interactions import InteractionIn
from services.deployment.assemble import DEMO_WEIGHTS
from services.process.announce import wait_until_listening
from tests.processes import msr, msr_says, running

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 120.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small demo world, prepared and summarized by the demo model."""
    folder = tmp_path_factory.mktemp("programs")
    write_files(folder / "world", num_items=40, num_users=12)
    data = str(folder / "data")
    msr("prepare-catalogue", "--catalogue", str(folder / "world"), "--image-size", "56",
        "--data", data)  # fmt: skip
    msr("summarize-images", "--data", data)
    msr("build-preferences", "--data", data, "--users", "2")
    return data


@pytest.mark.usefixtures("store")
def test_an_interaction_sent_to_the_server_is_covered_by_a_worker_elsewhere(
    data: str, redis_url: str
):
    with (
        running(redis_url, "serve", "--data", data, "--port", "0") as server,
        running(redis_url, "worker", "--data", data),
    ):
        url = listening(server)
        with MsrClient(url) as client:
            taken = [InteractionIn(user_id="new", item_id=f"item-{n:05d}") for n in range(3)]
            version = client.interact(*taken).versions["new"]
            preference = client.wait_for_version("new", version, timeout_seconds=PATIENCE_SECONDS)
            ranking = client.recommend("new", k=5, timeout_seconds=60)

    assert preference.preference
    assert preference.num_blocks == 1
    assert [item.scored_by for item in ranking.items] == ["mllm"] * 5
    assert not {item.item_id for item in ranking.items} & {taken.item_id for taken in taken}


@pytest.mark.usefixtures("store")
def test_an_adapter_activated_by_command_is_followed_elsewhere_and_kept_by_a_restart(
    data: str, redis_url: str, tmp_path: Path
):
    copytree(DEMO_WEIGHTS / "adapter-sft", tmp_path / "sft")
    serve = ("serve", "--data", data, "--port", "0", "--no-worker")
    folder = {"MSR_ADAPTERS": str(tmp_path), "MSR_ADAPTER_POLL_SECONDS": "0.1"}
    with (
        running(redis_url, *serve, **folder) as server,
        running(redis_url, *serve, **folder) as other,
    ):
        url = listening(server)
        lines = msr_says("adapters", "list", "--url", url).splitlines()
        rows = [line.split() for line in lines if not line.startswith(" ")]
        assert rows == [["adapter", "harden", "mllm", "active"], ["sft", "sft", "mllm"]]
        # Trained on another world than this one, as their manifests say.
        assert sum("validated and calibrated on another catalogue" in line for line in lines) == 2
        answer = json.loads(msr_says("adapters", "activate", "sft", "--url", url, "--json"))
        assert (answer["active"], answer["previous"]) == ("sft", "adapter")
        with MsrClient(listening(other)) as client:
            give_up = time.monotonic() + PATIENCE_SECONDS
            while client.adapters().active != "sft":
                assert time.monotonic() < give_up
                time.sleep(0.05)
            assert client.recommend("new", k=1).adapter == "sft"

    with running(redis_url, *serve, **folder) as restarted:
        url = listening(restarted)
        with MsrClient(url) as client:
            assert client.recommend("new", k=1).adapter == "sft"
        msr_says("adapters", "rollback", "--url", url)
        with MsrClient(url) as client:
            assert client.recommend("new", k=1).adapter == "adapter"


def listening(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    url = wait_until_listening(server.stdout)
    assert url is not None
    return url


@pytest.mark.usefixtures("store")
def test_a_server_that_asks_for_keys_takes_those_that_the_command_makes(
    data: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("REDIS_URL", redis_url)
    with running(redis_url, "serve", "--data", data, "--port", "0", MSR_REQUIRE_KEYS="1") as server:
        url = listening(server)
        with MsrClient(url) as stranger, pytest.raises(ProblemError) as refused:
            stranger.item("item-00000")
        token = msr_says("keys", "create", "--name", "shop", "--scope", "read").strip()
        with MsrClient(url, api_key=token) as shop:
            item = shop.item("item-00000")

    assert refused.value.problem.status == 401
    assert item.item_id == "item-00000"
