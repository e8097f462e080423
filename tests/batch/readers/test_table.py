"""A data set of another kind is one module and one line of the table."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from services.batch.readers.table import READERS, Reader
from services.commands import offline
from services.core.artifacts import Artifact
from services.core.errors import InputError

TOY = Reader(
    "toy", "tests.batch.readers.toy_reader.Toy", "Folder with likes.txt.", {"color": "A color."}
)


@pytest.fixture
def app() -> Iterator[typer.Typer]:
    READERS.append(TOY)
    app = typer.Typer()
    app.command()(offline.with_reader_options(inspect.unwrap(offline.prepare_catalogue)))
    yield app
    READERS.remove(TOY)


def test_a_reader_from_outside_prepares_a_catalogue(app: typer.Typer, tmp_path: Path):
    (tmp_path / "likes.txt").write_text("ann likes fox\nann likes boat\nbob likes fox")
    data = str(tmp_path / "data")

    options = ["--toy", str(tmp_path), "--color", "red", "--data", data]
    done = CliRunner().invoke(app, options, catch_exceptions=False)

    assert done.exit_code == 0
    assert Artifact(data, "items").read(["title"])["title"].to_pylist() == ["red fox", "red boat"]
    histories = Artifact(data, "interactions").read(["item_ids"])["item_ids"].to_pylist()
    assert histories == [["fox", "boat"], ["fox"]]


def test_an_option_that_a_reader_needs_is_asked_for(app: typer.Typer, tmp_path: Path):
    with pytest.raises(InputError, match="--toy needs --color: A color"):
        CliRunner().invoke(app, ["--toy", str(tmp_path)], catch_exceptions=False)
