"""Serve what an earlier commit made: are a data folder and its Redis answered from unchanged?

    python .ci/check_upgrade.py REVISION [--python OLD_PYTHON] [--work FOLDER]

Checks REVISION out beside this tree, lets its own code make the demo's data and take in new
interactions, and asks it 100 requests. Then this tree's code serves a copy of the same data folder
and Redis and is asked the same. Prints one JSON object; ends with status 1 if an answer differs.
Fields are compared that both answers have, so a new field is no difference, and a renamed one is
compared under its new name; of timings and ages only that they are there.

OLD_PYTHON is an interpreter with the packages of REVISION. Without it an environment is made for
REVISION, from its own pyproject.toml (minutes).
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NUM_USERS = 25
# Names of before -> names of today.
RENAMED = {"older_than_asked": "preference_behind", "parts": "features", "folds": "updates"}
# These differ from one run to the next of the same code.
VOLATILE = {"timings", "written_ms", "num_cached", "instance"}
PATIENCE_SECONDS = 600.0
# A model on another thread count or library may differ in the last digits of a float.
TOLERANCE = 1e-6


def main() -> int:
    """Compare, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision")
    parser.add_argument("--python", help="interpreter with the packages of REVISION")
    parser.add_argument("--work", type=Path, help="folder for the checkout and the data")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        old_tree, data = work / "old-tree", work / "data"
        _check_out(options.revision, old_tree)
        python = options.python or _environment(work / "old-venv", old_tree)
        _msr(python, old_tree, "demo", "--data", str(data), "--once", "--port", "0")
        with _serving(python, old_tree, data) as url:
            _send_interactions(url)
            before = _answers(url)
        copy = work / "copy"
        shutil.copytree(data, copy)
        with _serving(sys.executable, ROOT, copy) as url:
            after = _answers(url)
    differences = [
        f"{request}: {difference}"
        for request, answer in before.items()
        for difference in _differences(answer, after[request])
    ]
    print(
        json.dumps(
            {
                "revision": options.revision,
                "requests": len(before),
                "differing": len({text.split(": ")[0] for text in differences}),
                "differences": differences[:20],
            },
            indent=2,
        )
    )
    return 1 if differences else 0


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
    command = _command(python, *arguments)
    subprocess.run(command, cwd=tree, env=_settings(tree), stdout=sys.stderr, check=True)


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
        for line in process.stdout:
            if line.startswith("listening on "):
                yield line.removeprefix("listening on ").strip()
                break
        else:
            raise SystemExit(f"the server of {tree} ended before it answered")
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
            if time.monotonic() > give_up:
                raise SystemExit(f"the preference of {user} was not updated")
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
    request = urllib.request.Request(  # noqa: S310 - an address of this machine
        url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()}") from error


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


if __name__ == "__main__":
    sys.exit(main())
