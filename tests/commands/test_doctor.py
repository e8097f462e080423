"""`msr doctor` as it is typed: what it prints, and its exit status."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from benchmarks.faults.supervised_process import free_port
from services.cli import app
from tests.artifact_builders import write_items


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("REDIS_URL", raising=False)


def doctor(data: Path, *arguments: str) -> Result:
    common = ("doctor", "--data", str(data), "--port", "0", "--timeout", "120")
    return CliRunner().invoke(app, [*common, *arguments], catch_exceptions=False)


def test_a_machine_on_which_nothing_was_done_yet_has_no_problem(tmp_path: Path):
    finished = doctor(tmp_path / "data")

    assert finished.exit_code == 0, finished.output
    assert "0 problem(s)" in finished.stdout
    assert "PROBLEM" not in finished.stdout


def test_every_note_and_problem_says_what_to_do(tmp_path: Path):
    told = json.loads(doctor(tmp_path / "data", "--json").stdout)

    assert all(check["remedy"] for check in told["checks"] if check["status"] != "ok")
    names = [check["check"] for check in told["checks"]]
    assert list(dict.fromkeys(names)) == ["python", "packages", "steps", "settings", "gpu", "disk",
                                          "data", "model", "adapter", "model server", "redis",
                                          "port"]  # fmt: skip


def test_a_problem_makes_the_exit_status_1_and_no_secret_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("REDIS_URL", f"redis://:hunter2@127.0.0.1:{free_port()}")

    finished = doctor(tmp_path / "data", "--json")

    told = json.loads(finished.stdout)
    assert (finished.exit_code, told["problems"]) == (1, 1)
    assert "hunter2" not in finished.output


def test_a_setting_that_cannot_be_used_does_not_keep_the_other_checks_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MSR_NUM_SCORED", "many")

    told = json.loads(doctor(tmp_path / "data", "--json").stdout)

    problems = [check for check in told["checks"] if check["status"] == "problem"]
    assert ["MSR_NUM_SCORED" in check["found"] for check in problems] == [True]
    assert told["checks"][-1]["check"] == "port"


def test_a_sample_is_printed_and_its_page_is_named(tmp_path: Path):
    write_items(str(tmp_path), {"i1": "fox\x1b[31m", "i2": "boat"})

    printed = doctor(tmp_path, "--sample", "20")
    told = json.loads(doctor(tmp_path, "--sample", "20", "--json").stdout)

    assert "doctor-sample.html" in printed.stdout
    assert "\x1b" not in printed.stdout
    assert [(item["item_id"], item["title"]) for item in told["sample"]] == [
        ("i1", "fox [31m"),
        ("i2", "boat"),
    ]


def test_a_sample_of_nothing_is_a_problem_with_the_step_to_run(tmp_path: Path):
    told = json.loads(doctor(tmp_path, "--sample", "20", "--json").stdout)

    assert (told["sample"], told["problems"]) == ([], 1)
    assert "msr prepare-catalogue" in told["checks"][-1]["remedy"].lower()
