"""The adapter and the data folder, whole and broken."""

import json
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any

import fsspec
import pytest

from services.batch import build_preferences, summarize_images
from services.deployment.assemble import DEMO_WEIGHTS, choose_engine
from services.deployment.settings import Settings
from services.doctor.artifacts import check_adapter, check_data
from services.doctor.findings import Finding, run_checks
from tests.artifact_builders import EchoEngine, write_interactions, write_items

TITLES = {f"i{k}": f"title {k}" for k in range(4)}


def rows(found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.status, finding.found) for finding in found]


# --- the adapter ---------------------------------------------------------------------------------


def look_at(data: Path, **options: Any) -> list[Finding]:
    given = {"kind": "local", "model": None, "adapter": None} | options
    choose = partial(choose_engine, str(data), Settings(), **given)
    look = partial(check_adapter, str(data), choose, None)
    return list(run_checks({"adapter": look}, timeout_seconds=60))


def an_adapter(folder: Path, **changes: Any) -> Path:
    """The demo adapter with these fields of its manifest changed."""
    copytree(DEMO_WEIGHTS / "adapter", folder)
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_the_shipped_adapter_fits_the_shipped_model(tmp_path: Path):
    assert [finding.status for finding in look_at(tmp_path)] == ["ok"]


def test_the_base_model_alone_is_a_note(tmp_path: Path):
    assert [finding.status for finding in look_at(tmp_path, adapter="none")] == ["note"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"definition": {"scoring": "an older prompt"}}, "was trained under scoring"),
        ({"model": "another"}, "was trained on the base model another"),
        ({"weights": "others"}, "was written for weights others"),
        ({"calibration": {}}, "is not an adapter's manifest"),
    ],
)
@pytest.mark.parametrize("kind", ["local", "vllm"])
def test_an_adapter_that_does_not_fit_is_a_problem_that_says_why(
    changes: dict[str, Any], text: str, kind: str, tmp_path: Path
):
    an_adapter(tmp_path / "adapter", **changes)

    (found,) = look_at(tmp_path, kind=kind)

    if kind == "vllm" and "model" in changes:  # the server alone knows its base
        assert found.status == "ok"
    else:
        assert (found.status, text in found.found) == ("problem", True)


def test_a_manifest_that_is_no_json_is_a_problem(tmp_path: Path):
    (an_adapter(tmp_path / "adapter") / "manifest.json").write_text("{")

    assert [finding.status for finding in look_at(tmp_path)] == ["problem"]


def test_a_further_adapter_that_cannot_be_activated_is_a_note(tmp_path: Path):
    an_adapter(tmp_path / "adapters" / "spring", model="another")

    assert [finding.status for finding in look_at(tmp_path)] == ["ok", "note"]


# --- the data folder -----------------------------------------------------------------------------


@pytest.fixture
async def data(tmp_path: Path) -> str:
    """A data folder with every step that serving needs."""
    write_items(str(tmp_path), TITLES)
    write_interactions(str(tmp_path), {"u1": list(TITLES)})
    await summarize_images.run(str(tmp_path), EchoEngine(refuse="title 2"))
    await build_preferences.run(str(tmp_path), EchoEngine(), cut="none")
    return str(tmp_path)


def test_a_folder_that_is_not_there_is_a_note_that_says_how_to_begin(tmp_path: Path):
    (found,) = check_data(str(tmp_path / "data"))

    assert (found.status, "msr prepare-catalogue" in found.remedy) == ("note", True)


def test_finished_steps_are_listed_and_rows_left_out_are_a_note(data: str):
    found = list(check_data(data))

    assert [finding.status for finding in found] == ["note", "ok"]
    assert "summaries left out 1 rows; the first: i2: will not take title 2" in found[0].found
    assert found[1].found.endswith("items, interactions, summaries, preferences-whole.")


def test_the_next_step_is_named(tmp_path: Path):
    write_items(str(tmp_path), TITLES)
    write_interactions(str(tmp_path), {"u1": list(TITLES)})

    found = list(check_data(str(tmp_path)))

    assert found[-1].remedy == f"The next step is `msr summarize-images --data {tmp_path}`."


def test_what_was_made_from_other_items_is_a_problem_that_names_the_step(data: str):
    write_items(data, {**TITLES, "i9": "one more"})

    problems = [finding for finding in check_data(data) if finding.status == "problem"]

    assert [finding.found for finding in problems] == [
        f"{name} was made from other items than the data folder has now."
        for name in ("summaries", "preferences-whole")
    ]
    assert problems[0].remedy == "Run `msr summarize-images` again."


def test_preferences_by_another_prompt_are_a_problem(data: str):
    path = Path(data, "preferences-whole", "manifest.json")
    manifest = json.loads(path.read_text())
    manifest["definition"]["block_size"] = 7
    path.write_text(json.dumps(manifest))

    assert ("problem", "preferences-whole was made under another block size.") in rows(
        list(check_data(data))
    )


def test_a_missing_part_a_damaged_manifest_and_a_step_cut_short_are_distinguished(data: str):
    next(Path(data, "interactions").glob("*/part-*.parquet")).unlink()
    Path(data, "summaries", "manifest.json").write_text("[]")
    Path(data, "examples").mkdir()

    found = rows(list(check_data(data)))

    assert ("problem", "parts of interactions that its manifest names are missing.") in found
    assert any(status == "problem" and "is not a manifest" in text for status, text in found)
    assert ("note", "examples is not finished.") in found


def test_a_step_cut_short_is_found_in_an_object_store_too():
    fsspec.filesystem("memory").makedirs("/a-step-cut-short/items")

    found = rows(list(check_data("memory://a-step-cut-short")))

    assert ("note", "items is not finished.") in found
