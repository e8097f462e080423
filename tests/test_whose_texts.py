"""Another model than the texts', through the commands: refused, or accepted, said and mended."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from model_training.demo.world import write_files
from services.core.artifacts import Artifact
from services.deployment.assemble import DEMO_WEIGHTS
from services.process.announce import wait_until_listening
from tests.processes import PATIENCE_SECONDS, msr, running

pytestmark = pytest.mark.slow

BASE = DEMO_WEIGHTS / "base"


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo model, but it writes "blue" for "red" and "red" for "blue"."""
    folder = tmp_path_factory.mktemp("models") / "other-model"
    shutil.copytree(BASE, folder)
    weights = load_file(folder / "model.safetensors")
    red, blue = AutoTokenizer.from_pretrained(folder)([" red", " blue"])["input_ids"]
    head = weights["language_model.lm_head.weight"]
    head[red + blue] = head[blue + red]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "README.md").write_text("---\nmodel_name: Other model\n---\n")
    return str(folder)


def prepared(folder: Path, *model: str) -> str:
    """A small drawn world, and the texts of a model about it."""
    if not (folder / "world").exists():
        write_files(folder / "world", num_items=40, num_users=12)
    data = str(folder / ("data" + "-other" * bool(model)))
    msr("prepare-catalogue", "--catalogue", str(folder / "world"), "--image-size", "56",
        "--min-item-interactions", "0", "--min-user-interactions", "1", "--data", data)  # fmt: skip
    msr("summarize-images", "--data", data, *model)
    msr("build-preferences", "--data", data, "--cut", "none", *model)
    return data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whose")


@pytest.fixture(scope="module")
def data(folder: Path) -> str:
    return prepared(folder)


@pytest.fixture(scope="module")
def expected(folder: Path, other_model: str) -> dict[str, dict[str, str]]:
    """What the other model writes offline."""
    data = prepared(folder, "--model", other_model)
    summaries = Artifact(data, "summaries").read().to_pylist()
    preferences = Artifact(data, "preferences-whole").read().to_pylist()
    return {
        "summaries": {row["item_id"]: row["summary"] for row in summaries},
        "preferences": {row["user_id"]: row["preference"] for row in preferences},
    }


def texts_now(url: str, like: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    with httpx.Client(base_url=url) as api:
        items = {i: api.get(f"/items/{i}").json()["summary"] for i in like["summaries"]}
        users = {
            u: api.get(f"/users/{u}/preference").json()["preference"] for u in like["preferences"]
        }
    return {"summaries": items, "preferences": users}


def health(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/health/ready").json()["components"]["texts"]
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    """The limit only keeps a broken test from hanging."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.1)


def listening(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    url = wait_until_listening(process.stdout)
    assert url is not None
    return url


def refused(redis_url: str, *arguments: str) -> str:
    """The message of a program that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        env=os.environ | {"REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    [message] = [line for line in done.stderr.splitlines() if line.startswith("msr: ")]
    return message


@pytest.mark.usefixtures("store")
def test_another_model_is_refused_or_says_so_everywhere_and_writes_all_anew(
    data: str, other_model: str, expected: dict[str, dict[str, str]], redis_url: str
):
    other = ("--data", data, "--model", other_model, "--adapter", "none")
    serve = ("serve", *other, "--port", "0")

    message = refused(redis_url, *serve)
    assert "summaries and preferences are by MSR demo model" in message
    assert "this process writes by Other model" in message
    for remedy in ("start it with the model", "msr summarize-images", "--accept-other-texts"):
        assert remedy in message

    # Served by an API alone, nothing is written anew: everything is said and marked.
    with running(redis_url, *serve, "--no-worker", "--accept-other-texts") as api:
        url = listening(api)
        assert health(url)["state"] == "degraded"
        assert "MSR demo model" in health(url)["detail"]
        user = next(iter(expected["preferences"]))
        ranking = httpx.post(
            f"{url}/recommend", json={"user_id": user, "k": 1, "timeout_seconds": 60}, timeout=90
        ).json()
        assert "texts-of-another-model" in ranking["caveats"]
        assert httpx.get(f"{url}/users/{user}/preference").json()["by_another_model"] is True
        assert "texts of another model" in refused(redis_url, "worker", *other)

        # A server with its worker is killed once some texts are written, and a worker finishes.
        # (Health looks at them every few seconds only, and may miss the whole rewriting.)
        before = texts_now(url, expected)
        assert before["summaries"] != expected["summaries"]
        assert before["preferences"] != expected["preferences"]
        killed = subprocess.Popen(
            [sys.executable, "-m", "services.cli", *serve, "--worker", "--accept-other-texts"],
            env=os.environ | {"REDIS_URL": redis_url},
        )
        try:
            wait_until(lambda: texts_now(url, expected) != before)
        finally:
            killed.kill()
            killed.wait()
        with running(redis_url, "worker", *other, "--accept-other-texts"):
            wait_until(lambda: health(url)["state"] == "ok")
        assert texts_now(url, expected) == expected
        assert "summaries by Other model" in health(url)["detail"]

    # Now they are its own, and the model that wrote those of the data folder is the other one.
    with running(redis_url, *serve, "--no-worker") as api:
        assert texts_now(listening(api), expected) == expected

    # Its own model puts the data folder's texts back.
    with running(redis_url, "serve", "--data", data, "--port", "0", "--no-worker") as api:
        url = listening(api)
        rows = Artifact(data, "summaries").read().to_pylist()
        summaries = {row["item_id"]: row["summary"] for row in rows}
        assert texts_now(url, expected)["summaries"] == summaries


def test_the_demo_model_on_another_catalogue_is_met_at_the_first_step(folder: Path, data: str):
    command = [sys.executable, "-m", "services.cli", "summarize-images", "--data", data, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "knows its own catalogue only, not this one" in json.loads(done.stdout)["caveat"]
    assert "knows its own catalogue only, not this one" in done.stderr
