"""A new engine is one module and one line in a table; nothing else knows the kinds."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli import app
from services.commands.options import EngineArguments, settings
from services.core.artifacts import Artifact
from services.core.errors import InputError
from services.engines.open_engine import ENGINES, EngineModule, open_engine
from tests.artifact_builders import write_items
from tests.engines.conftest import a_prompt


@pytest.fixture
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line."""
    monkeypatch.setitem(ENGINES, "toy", EngineModule("tests.engines.toy_engine"))


@pytest.mark.usefixtures("_toy")
async def test_an_engine_from_outside_scores():
    engine = await open_engine("toy", model="toy-1")

    assert engine.identity.model == "toy-1"
    assert (await engine.score(a_prompt(taste="red"))).yes == -0.1


@pytest.mark.usefixtures("_toy")
async def test_a_deployment_opens_it_as_it_opens_any_other(tmp_path: Path):
    choice = EngineArguments("toy", "toy-1", "none").choose(str(tmp_path), settings())
    engine = await choice.open()

    assert engine.identity.model == "toy-1"
    assert (await engine.score(a_prompt(title="a boat", taste="blue"))).no == -0.1


@pytest.mark.usefixtures("_toy")
def test_msr_takes_it_as_its_engine(tmp_path: Path):
    write_items(str(tmp_path), {"i1": "a calm fox"})
    command = ["summarize-images", "--data", str(tmp_path), "--engine", "toy", "--json"]
    result = CliRunner().invoke(app, command)

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["summaries"] == 1
    written = Artifact(str(tmp_path), "summaries").read(["summary"])
    assert written["summary"].to_pylist() == ["a red thing"]


async def test_an_engine_that_there_is_not_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="no engine 'toy'; choose from local, vllm"):
        await open_engine("toy", model="toy-1")


def test_msr_refuses_an_unknown_engine(tmp_path: Path):
    result = CliRunner().invoke(
        app, ["summarize-images", "--data", str(tmp_path), "--engine", "toy"]
    )

    assert result.exit_code == 2
    assert "vllm-in-process" in result.output
