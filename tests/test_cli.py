"""The command: its table of contents, one JSON line, and errors in one sentence."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli import app
from services.core.artifacts import Artifact


def msr(*arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    finished = subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "COLUMNS": "200"},
    )
    assert finished.returncode == expect, finished.stderr
    return finished


def a_catalogue(folder: Path, *, items: str = "item_id,title\na,Fox\nb,Boat\nc,Tree\n") -> Path:
    folder.mkdir()
    (folder / "items.csv").write_text(items)
    rows = [f"{user},{item},{n}" for user in ("u1", "u2") for n, item in enumerate("abc")]
    (folder / "interactions.csv").write_text("\n".join(["user_id,item_id,timestamp_ms", *rows]))
    return folder


def test_help_reads_as_the_table_of_contents_in_the_order_of_the_data_flow():
    shown = msr("--help").stdout

    steps = ["prepare-catalogue", "summarize-images", "build-preferences", "fit-retrieval",
             "build-examples", "train", "fit-ranker", "evaluate", "serve", "worker", "demo",
             "bench"]  # fmt: skip
    positions = [shown.index(f" {step} ") for step in steps]
    assert positions == sorted(positions)
    assert re.findall(r" (\d+)\. ", shown) == [str(number) for number in range(1, 9)]


def test_with_json_the_last_line_is_one_object_with_counts_and_seconds(tmp_path: Path):
    data = tmp_path / "data"
    folder = a_catalogue(tmp_path / "files")

    output = msr("prepare-catalogue", "--catalogue", str(folder), "--data", str(data), "--json")

    result = json.loads(output.stdout.splitlines()[-1])
    assert (result["users"], result["items"], result["interactions"]) == (2, 3, 6)
    assert result["seconds"] > 0
    assert Artifact(str(data), "items").read(["item_id"])["item_id"].to_pylist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare-catalogue"], "name one data set"),
        (["prepare-catalogue", "--demo", "--catalogue", "x"], "name one data set"),
        (["prepare-catalogue", "--microlens", "no-such-folder"], "no-such-folder"),
        (["prepare-catalogue", "--amazon", "."], "--category"),
        (["build-examples", "--data", "nothing-here"], "msr prepare-catalogue"),
        (["bench", "no-such-benchmark"], "there are"),
    ],
)
def test_a_mistake_is_answered_in_one_sentence_that_names_the_remedy(
    arguments: list[str], message: str
):
    stderr = msr(*arguments, expect=1).stderr

    assert message in stderr
    assert "Traceback" not in stderr
    assert len(stderr.strip().splitlines()) == 1


def test_a_missing_column_is_named_with_the_file(tmp_path: Path):
    folder = a_catalogue(tmp_path / "files", items="item_id,name\na,Fox\n")

    stderr = msr(
        "prepare-catalogue", "--catalogue", str(folder), "--data", str(tmp_path), expect=1
    ).stderr

    assert "items.csv" in stderr
    assert "title" in stderr


def test_the_openapi_document_is_printed_with_or_without_keys():
    keyed, open_to_all = (
        json.loads(CliRunner().invoke(app, ["openapi", *options]).stdout)
        for options in ([], ["--without-keys"])
    )

    assert keyed["paths"].keys() == open_to_all["paths"].keys() >= {"/recommend"}
    assert "securitySchemes" in keyed["components"]
    assert "securitySchemes" not in open_to_all["components"]
