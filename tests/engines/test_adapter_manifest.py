"""An adapter is served only where it belongs, and weights go by the same name wherever they are."""

import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest

from services.core.drift import ScoreHistogram
from services.core.errors import ArtifactMismatch, ModelUnusable
from services.core.prompts import GenerationLimits
from services.core.scoring import NOT_CALIBRATED, Calibration
from services.engines.adapter_manifest import (
    MANIFEST,
    current_definition,
    read_adapter_manifest,
    require_servable,
)
from services.engines.checkpoints import (
    fingerprint_checkpoint,
    identify,
    manifest_in_use,
    read_adapter,
)
from services.engines.contract import EngineIdentity
from services.engines.local.engine import LocalEngine
from services.engines.open_engine import open_engine
from tests.engines.conftest import a_manifest, a_prompt


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path):
    (tmp_path / "manifest.json").write_text(a_manifest().to_json())

    assert read_adapter_manifest(tmp_path) == a_manifest()
    require_servable(a_manifest(), model="base-1")


@pytest.mark.parametrize("name", sorted(current_definition()))
def test_an_adapter_of_another_definition_is_refused(name: str):
    older = replace(a_manifest(), definition={**current_definition(), name: "older"})

    with pytest.raises(ArtifactMismatch, match=f"under {name} 'older'"):
        require_servable(older, model="base-1")


def test_an_adapter_of_another_base_model_is_refused():
    with pytest.raises(ArtifactMismatch, match="base-1"):
        require_servable(a_manifest(), model="base-2")


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path):
    with pytest.raises(ModelUnusable, match="msr train"):
        read_adapter_manifest(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"model": "m"})])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, content: str):
    (tmp_path / "manifest.json").write_text(content)

    with pytest.raises(ModelUnusable, match="not an adapter's manifest"):
        read_adapter_manifest(tmp_path)


def test_a_manifest_without_a_calibration_is_of_an_older_version(tmp_path: Path):
    older = json.loads(a_manifest().to_json())
    del older["calibration"]
    (tmp_path / "manifest.json").write_text(json.dumps(older))

    with pytest.raises(ModelUnusable, match="`msr train` again"):
        read_adapter_manifest(tmp_path)


def test_a_calibration_without_its_figures_is_refused():
    with pytest.raises(ValueError, match="lacks ece_after, ece_before"):
        a_manifest(calibration={"slope": 1.0, "intercept": 0.0, "prior": 0.5})


@pytest.mark.parametrize(
    ("name", "value"),
    [("slope", -1.0), ("slope", float("nan")), ("slope", "x"), ("prior", 1.0), ("ece_after", None)],
)
def test_a_calibration_that_would_turn_answers_around_or_is_no_number_is_refused(
    tmp_path: Path, name: str, value: object
):
    manifest = json.loads(a_manifest().to_json())
    manifest["calibration"][name] = value
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(ModelUnusable, match="not an adapter's manifest of this version"):
        read_adapter_manifest(tmp_path)


@pytest.mark.parametrize("name", ["definition", "calibration"])
def test_a_manifest_with_nothing_where_a_definition_should_be_is_refused(tmp_path: Path, name: str):
    manifest = json.loads(a_manifest().to_json()) | {name: None}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(ModelUnusable, match="not an adapter's manifest of this version"):
        read_adapter_manifest(tmp_path)


def test_a_manifest_beside_the_weights_of_another_training_is_refused(
    adapter: Path, tmp_path: Path
):
    copytree(adapter, tmp_path / "adapter")
    manifest = a_manifest(weights=fingerprint_checkpoint(adapter))
    (tmp_path / "adapter" / "manifest.json").write_text(manifest.to_json())
    assert read_adapter(tmp_path / "adapter") == manifest
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 4', '"r": 8'))

    with pytest.raises(ModelUnusable, match="the files of one training"):
        manifest_in_use("base", str(tmp_path / "adapter"))


@pytest.fixture
def merged(checkpoint: Path, tmp_path: Path) -> str:
    """A checkpoint that keeps the manifest of the adapter in it."""
    folder = tmp_path / "merged"
    copytree(checkpoint, folder)
    (folder / "manifest.json").write_text(a_manifest().to_json())
    return str(folder)


def test_a_base_and_its_adapter_go_by_their_own_fingerprints(checkpoint: Path, adapter: Path):
    alone = EngineIdentity(fingerprint_checkpoint(checkpoint), "")

    assert identify(str(checkpoint)) == alone
    assert identify(str(checkpoint), str(adapter)) == replace(
        alone, adapter=fingerprint_checkpoint(adapter)
    )


def test_an_adapter_is_known_with_the_calibration_that_its_manifest_holds(
    checkpoint: Path, adapter: Path, tmp_path: Path
):
    copytree(adapter, tmp_path / "adapter")
    (tmp_path / "adapter" / "manifest.json").write_text(a_manifest().to_json())

    identity = identify(str(checkpoint), str(tmp_path / "adapter"))
    assert identity.calibration == Calibration(slope=0.5, intercept=-1.0, prior=0.25)
    assert identify(str(checkpoint), str(adapter)).calibration == NOT_CALIBRATED


def test_a_merged_checkpoint_goes_by_its_bases_fingerprint_and_its_own(merged: str):
    corrected = Calibration(slope=0.5, intercept=-1.0, prior=0.25)
    assert identify(merged) == EngineIdentity("base-1", fingerprint_checkpoint(merged), corrected)
    assert manifest_in_use(merged, None) == a_manifest()


def test_two_adapters_merged_into_one_base_never_go_by_one_name(merged: str):
    """Large files are read at their ends alone, and those may be the same."""
    first = identify(merged)
    other = replace(a_manifest(), fingerprint="f2")
    (Path(merged) / "manifest.json").write_text(other.to_json())

    assert identify(merged) != first


def test_a_merged_checkpoint_takes_no_adapter(merged: str, adapter: Path):
    with pytest.raises(ModelUnusable, match="takes no further adapter"):
        LocalEngine.load(merged, str(adapter), device="cpu")


async def test_a_merged_checkpoint_scores_and_writes_no_texts(merged: str):
    engine = LocalEngine.load(merged, device="cpu")
    try:
        assert (await engine.score(a_prompt())).yes < 0
        with pytest.raises(ModelUnusable, match="with its base model"):
            await engine.generate(a_prompt(), GenerationLimits(max_new_tokens=3))
    finally:
        await engine.close()


async def test_a_merged_checkpoint_of_another_definition_is_not_opened(merged: str):
    older = replace(a_manifest(), definition={**current_definition(), "scoring": "older"})
    (Path(merged) / "manifest.json").write_text(older.to_json())

    with pytest.raises(ArtifactMismatch, match="under scoring 'older'"):
        await open_engine("local", model=merged)


def test_a_manifest_may_tell_how_scores_were_spread_over_validation_users(tmp_path: Path):
    spread = {"edges": [0.1, 0.5], "counts": [3, 4, 5]}
    (tmp_path / MANIFEST).write_text(a_manifest(validation_scores=spread).to_json())

    read = read_adapter_manifest(tmp_path).score_histogram
    assert read == ScoreHistogram((0.1, 0.5), (3, 4, 5))


def test_a_manifest_of_an_older_version_tells_none_and_is_read(tmp_path: Path):
    fields = json.loads(a_manifest().to_json())
    del fields["validation_scores"]
    (tmp_path / MANIFEST).write_text(json.dumps(fields))

    assert read_adapter_manifest(tmp_path).score_histogram is None


@pytest.mark.parametrize("spread", [{}, {"edges": [0.5], "counts": [1]}, [1, 2]])
def test_validation_scores_that_are_none_are_refused(tmp_path: Path, spread: object):
    fields = json.loads(a_manifest().to_json()) | {"validation_scores": spread}
    (tmp_path / MANIFEST).write_text(json.dumps(fields))

    with pytest.raises(ModelUnusable, match="manifest of this version"):
        read_adapter_manifest(tmp_path)
