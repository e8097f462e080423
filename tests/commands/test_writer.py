"""`msr build-preferences` with a writer of its own."""

import asyncio
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.families.writers import write_writer
from services.batch import build_preferences, summarize_images
from services.cli import app
from services.core.artifacts import Artifact
from services.core.errors import ModelUnusable
from services.engines.checkpoints import identify
from services.engines.local.engine import LocalEngine
from tests.artifact_builders import write_interactions, write_items
from tests.builders import DigestEngine, some_ids

HISTORIES = {"u1": some_ids(8), "u2": some_ids(5)}


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_writer("qwen-2.5-instruct", tmp_path_factory.mktemp("models") / "my-writer"))


@pytest.fixture
async def data(tmp_path: Path) -> str:
    """Items with summaries of another model, and interactions."""
    write_items(str(tmp_path), {item_id: f"title of {item_id}" for item_id in some_ids(8)})
    write_interactions(str(tmp_path), HISTORIES)
    await summarize_images.run(str(tmp_path), DigestEngine(model="summarizer"))
    return str(tmp_path)


def build(data: str, *options: str) -> None:
    arguments = ["build-preferences", "--data", data, "--cut", "none", *options]
    CliRunner().invoke(app, arguments, catch_exceptions=False)


def preferences(data: str) -> dict[str, str]:
    """Those in the data folder, by user."""
    rows = Artifact(data, "preferences-whole").read().to_pylist()
    return {row["user_id"]: row["preference"] for row in rows}


async def by_itself(data: str, writer: str) -> dict[str, str]:
    """The preferences by user that this model writes, asked alone."""
    engine = LocalEngine.load(writer, device="cpu", texts_only=True)
    try:
        await build_preferences.run(data, engine, cut="none")
    finally:
        await engine.close()
    return preferences(data)


def test_the_writer_writes_and_the_other_model_need_not_be_there(
    data: str, writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = asyncio.run(by_itself(data, writer))
    shutil.rmtree(Path(data) / "preferences-whole")
    monkeypatch.setenv("MSR_WRITER", writer)

    build(data, "--model", str(tmp_path / "no-such-model"))

    assert preferences(data) == expected
    manifest = Artifact(data, "preferences-whole").manifest()
    assert (manifest.model, manifest.writer.name) == (identify(writer).model, "my-writer")


def test_a_writer_that_is_not_there_is_named(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MSR_WRITER", str(tmp_path / "no-such-writer"))

    with pytest.raises(ModelUnusable, match="no-such-writer"):
        build(data)
