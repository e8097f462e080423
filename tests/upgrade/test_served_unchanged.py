"""What an earlier commit made is served unchanged: its data folder and its Redis.

    make test-upgrade [BASE=REVISION]

BASE is checked out into a folder of its own, with an environment of its own (minutes; or name an
interpreter that has its packages: MSR_BASE_PYTHON). Its code makes the demo's data, takes in new
interactions and answers 100 requests. Then today's code serves a copy of the same data folder and
Redis and is asked the same. Fields are compared that BASE's answers have, so a new field is no
difference, and a renamed one is compared under its new name.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.process.announce import wait_until_listening

ROOT = Path(__file__).parents[2]
NUM_USERS = 25
# Names of before -> names of today.
RENAMED = {"older_than_asked": "preference_behind", "folds": "updates"}
# These differ from one run to the next of the same code.
VOLATILE = {"timings", "written_ms", "num_cached", "instance"}
PATIENCE_SECONDS = 600.0
# A model on another thread count or library may differ in the last digits of a float.
TOLERANCE = 1e-6


@pytest.mark.upgrade
def test_today_answers_as_the_commit_that_made_data_and_redis(tmp_path: Path):
    revision = os.environ["MSR_BASE"]
    old_tree, data, copy = tmp_path / "old-tree", tmp_path / "data", tmp_path / "copy"
    _check_out(revision, old_tree)
    python = os.environ.get("MSR_BASE_PYTHON") or _environment(tmp_path / "old-venv", old_tree)
    _msr(python, old_tree, "demo", "--data", str(data), "--once", "--port", "0")
    with _serving(python, old_tree, data) as url:
        _send_interactions(url)
        before = _answers(url)
    shutil.copytree(data, copy)

    with _serving(sys.executable, ROOT, copy) as url:
        after = _answers(url)

    assert len(before) == 100
    differences = [
        f"{request}: {difference}"
        for request, answer in before.items()
        for difference in _differences(answer, after[request])
    ]
    assert differences == []
    print(f"served unchanged: {len(before)} of {len(before)} answers as {revision} gave them")


def _check_out(revision: str, folder: Path) -> None:
    folder.mkdir()
    archive = subprocess.run(
        ["git", "archive", revision], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


def _environment(folder: Path, tree: Path) -> str:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "torch==2.13.0"], check=True)
    subprocess.run([*pip, f"{tree}[serve]"], check=True)
    return python


def _msr(python: str, tree: Path, *arguments: str) -> None:
    subprocess.run(_command(python, *arguments), cwd=tree, env=_settings(tree), check=True)


def _command(python: str, *arguments: str) -> list[str]:
    return [python, "-c", "from services.cli import main; main()", *arguments]


def _settings(tree: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MSR_")}
    kept.pop("REDIS_URL", None)
    paths = [str(tree), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths)}


@contextmanager
def _serving(python: str, tree: Path, data: Path) -> Iterator[str]:
    process = subprocess.Popen(
        _command(python, "serve", "--data", str(data), "--port", "0"),
        cwd=tree,
        env=_settings(tree),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = wait_until_listening(process.stdout)
        assert url is not None, f"the server of {tree} ended before it answered"
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_SECONDS)


def _users() -> list[str]:
    return [f"user-{number:05d}" for number in range(NUM_USERS)]


def _send_interactions(url: str) -> None:
    """Four new interactions a user: each crosses the end of a block. Waits for the updates."""
    for place, user in enumerate(_users()):
        batch = [
            {
                "user_id": user,
                "item_id": f"item-{(7 * place + 31 * step) % 480:05d}",
                "timestamp_ms": 1_900_000_000_000 + 1000 * step,
                "event_id": f"upgrade-{place}-{step}",
            }
            for step in range(4)
        ]
        _ask(url, "POST", "/interactions", {"interactions": batch})
    give_up = time.monotonic() + PATIENCE_SECONDS
    for user in _users():
        while True:
            state = _ask(url, "GET", f"/users/{user}/preference")
            if state["preference_version"] == state["history_version"]:
                break
            assert time.monotonic() < give_up, f"the preference of {user} was not updated"
            time.sleep(0.1)


def _answers(url: str) -> dict[str, Any]:
    """100 requests by what they ask: 25 users, three kinds of recommendation and the preference."""
    answers = {}
    for user in _users():
        for mode in ("cascade", "mllm", "cheap"):
            body = {"user_id": user, "k": 10, "mode": mode, "timeout_seconds": 60}
            answers[f"{mode} {user}"] = _ask(url, "POST", "/recommend", body)
        answers[f"preference {user}"] = _ask(url, "GET", f"/users/{user}/preference")
    return answers


def _ask(url: str, method: str, path: str, body: object = None) -> Any:
    answer = httpx.request(method, url + path, json=body, timeout=PATIENCE_SECONDS)
    assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
    return answer.json()


def _differences(before: Any, after: Any, at: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            name = RENAMED.get(name, name)
            if name in VOLATILE:
                continue
            if name not in after:
                yield f"{at}/{name} is missing"
            else:
                yield from _differences(value, after[name], f"{at}/{name}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differences(one, other, f"{at}/{place}")
    elif isinstance(before, float) and isinstance(after, float):
        if abs(before - after) > TOLERANCE:
            yield f"{at} was {before!r}, is {after!r}"
    elif before != after:
        yield f"{at} was {before!r}, is {after!r}"
