"""A newcomer's photographs and the shipped demo model: every place of the quick start warns.

The demo model knows its own drawn world only. Here it gets 400 pictures of another one: photographs
that packages carry, cut and turned, and noise.
"""

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import matplotlib.cbook
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images
from typer.testing import CliRunner, Result

from services.cli import app
from services.deployment.assemble import choose_engine, serve
from services.deployment.settings import Settings
from tests.clients.serving import served

NUM_PHOTOGRAPHS, NUM_NOISE, NUM_USERS, HISTORY_SIZE = 360, 40, 100, 8
PLACES = ("Lisbon", "Oslo", "Kyoto", "Quito", "Accra", "Turin", "Perth")
SAME = " summaries are the same text ("
WHAT_TO_DO = "summarize them with a published model (docs/gpu.md), or serve without texts"


def photographs() -> list[Image.Image]:
    found = [Image.fromarray(each) for each in load_sample_images().images]
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        return [*found, Image.open(file).convert("RGB")]


def draw_pictures(rng: np.random.Generator) -> list[Image.Image]:
    """Parts of photographs, every other one mirrored, and noise."""
    whole = photographs()
    drawn = []
    for number in range(NUM_PHOTOGRAPHS):
        photograph = whole[number % len(whole)]
        side = int(rng.integers(min(photograph.size) // 3, min(photograph.size)))
        left, top = (int(rng.integers(0, length - side + 1)) for length in photograph.size)
        part = photograph.crop((left, top, left + side, top + side))
        drawn.append(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else part)
    noise = rng.integers(0, 256, (NUM_NOISE, 120, 120, 3), dtype=np.uint8)
    return [*drawn, *map(Image.fromarray, noise)]


def write_shop(folder: Path) -> None:
    """Two tables and the pictures, as the tutorial has them."""
    rng = np.random.default_rng(16)
    (folder / "covers").mkdir(parents=True)
    items, interactions = [("item_id", "title", "image")], [("user_id", "item_id", "timestamp")]
    for number, picture in enumerate(draw_pictures(rng)):
        name = f"covers/{number}.jpg"
        picture.save(folder / name)
        title = f"{PLACES[number % len(PLACES)]}, journey {number}"
        items.append((f"p{number}", title, name))
    for user in range(NUM_USERS):
        taken = rng.choice(len(items) - 1, HISTORY_SIZE, replace=False)
        interactions += [(f"u{user}", f"p{k}", str(1_700_000_000 + t)) for t, k in enumerate(taken)]
    for name, rows in (("items", items), ("interactions", interactions)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)


def msr(*arguments: str) -> Result:
    finished = CliRunner().invoke(app, [*arguments])
    assert finished.exception is None or isinstance(finished.exception, SystemExit)
    return finished


@pytest.fixture(scope="module")
def quick_start(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The data folder, and what each command of the quick start printed."""
    folder = tmp_path_factory.mktemp("photographs")
    write_shop(folder / "shop")
    data = str(folder / "data")
    return {
        "data": data,
        "prepare": msr("prepare-catalogue", "--catalogue", str(folder / "shop"), "--data", data),
        "summarize": msr("summarize-images", "--data", data),
        "preferences": msr("build-preferences", "--data", data, "--cut", "none", "--json"),
    }


def test_the_first_step_that_writes_warns_with_what_to_do(quick_start: dict[str, Any]):
    printed = quick_start["summarize"]

    assert printed.exit_code == 0
    assert SAME in printed.stdout
    assert WHAT_TO_DO in printed.stdout
    assert "texts_do_not_vary" in printed.output  # the log, on stderr


def test_the_step_after_it_warns_too(quick_start: dict[str, Any]):
    told = json.loads(quick_start["preferences"].stdout.splitlines()[-1])

    assert told["users"] == NUM_USERS
    assert " preferences are the same text: " in told["texts"]["warning"]


def test_the_doctor_finds_a_problem_and_shows_pictures_beside_their_texts(
    quick_start: dict[str, Any],
):
    printed = msr(
        "doctor", "--data", quick_start["data"], "--port", "0", "--sample", "20", "--json"
    )

    told = json.loads(printed.stdout)
    problems = [check for check in told["checks"] if check["status"] == "problem"]
    assert printed.exit_code == 1
    assert [check["check"] for check in problems] == ["texts", "texts", "model"]
    assert SAME in problems[0]["found"]
    page = Path(quick_start["data"], "doctor-sample.html").read_text()
    assert (len(told["sample"]), page.count("data:image/jpeg;base64,")) == (20, 20)


def test_the_service_says_so_in_health_progress_and_metrics(
    quick_start: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("REDIS_URL", raising=False)
    data, settings = quick_start["data"], Settings()
    choice = choose_engine(data, settings, kind="local", model=None, adapter=None)
    run = partial(serve, data, choice, settings, host="127.0.0.1", port=0)

    with served(lambda listening, stop: run(on_listening=listening, stop=stop)) as url:
        ready = httpx.get(f"{url}/health/ready")
        steps = httpx.get(f"{url}/progress").json()["steps"]
        metrics = httpx.get(f"{url}/metrics").text

    texts = ready.json()["components"]["texts"]
    assert (ready.status_code, ready.json()["status"], texts["state"]) == (
        200, "degraded", "degraded",
    )  # fmt: skip
    assert SAME in texts["detail"]
    (summaries,) = (step for step in steps if step["artifact"] == "summaries")
    assert WHAT_TO_DO in summaries["texts"]["warning"]
    assert 'msr_texts_most_frequent_share{kind="summaries"}' in metrics
