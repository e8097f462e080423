"""`msr evaluate`: its last line is the JSON, and weights are loaded only where they are asked."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli import app
from services.core.errors import ArtifactMissing
from tests.model_training.builders import write_world


@pytest.fixture
def data(tmp_path: Path) -> str:
    write_world(str(tmp_path))
    return str(tmp_path)


def evaluate(data: str, *options: str):
    return CliRunner().invoke(app, ["evaluate", "--data", data, *options])


def test_the_last_line_is_one_json_object_with_models_and_report(data: str):
    printed = evaluate(data, "--models", "popularity,random", "--json").stdout

    result = json.loads(printed.splitlines()[-1])
    assert list(result)[:2] == ["random", "popularity"]
    assert (result["protocol"], result["users"]) == ("chrono-uniform", 3)
    assert Path(result["report"]) == Path(data) / "reports" / "chrono-uniform" / "report.html"
    assert Path(result["report"]).exists()


def test_no_model_is_loaded_for_cheap_rankers(data: str):
    found = evaluate(data, "--models", "popularity", "--model", "/nowhere", "--json")

    assert found.exit_code == 0


def test_what_a_model_lacks_is_reported_before_its_weights_are_loaded(data: str):
    options = ("--protocol", "paper", "--models", "mllm", "--model", "/nowhere")
    found = evaluate(data, *options)

    assert isinstance(found.exception, ArtifactMissing)
    assert "build-preferences --cut popular" in str(found.exception)
