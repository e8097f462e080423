"""The commit of the code, from the environment or from git."""

import subprocess
from pathlib import Path

import pytest

from services.telemetry.build import UNKNOWN, code_commit


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "benchmarks/results").mkdir(parents=True)
    for name in ("code.py", "benchmarks/results/walk.md"):
        (tmp_path / name).write_text("before\n")
    for command in (["init"], ["add", "."], [*IDENTITY, "commit", "--message", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


IDENTITY = ["-c", "user.name=a", "-c", "user.email=a@b"]


def test_the_environment_names_the_commit_of_an_image(repository: Path):
    assert code_commit(repository, {"MSR_COMMIT": "abc1234"}) == "abc1234"


def test_git_names_the_commit_of_a_checkout(repository: Path):
    command = ["git", "rev-parse", "--short", "HEAD"]
    head = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True)
    assert code_commit(repository, {}) == head.stdout.strip()


def test_changed_code_is_marked_and_a_changed_table_is_not(repository: Path):
    (repository / "benchmarks/results/walk.md").write_text("after\n")
    (repository / "untracked").write_text("anything\n")
    clean = code_commit(repository, {})
    (repository / "code.py").write_text("after\n")
    assert "+changes" not in clean
    assert code_commit(repository, {}) == f"{clean}+changes"


def test_code_outside_a_repository_has_no_commit(repository: Path):
    installed = repository / "site-packages"
    installed.mkdir()
    assert code_commit(installed, {}) == UNKNOWN
