"""An adapter is served only where it belongs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from services.core.errors import ArtifactMismatch, ModelUnusable
from services.engines.adapters import (
    AdapterManifest,
    current_definition,
    read_adapter_manifest,
    require_servable,
)


def a_manifest() -> AdapterManifest:
    return AdapterManifest(
        fingerprint="f1",
        definition=current_definition(),
        model="base-1",
        model_name="base",
        image_size=56,
        answer_tokens={"yes": 1, "no": 2},
        inputs={},
        config={},
        counts={},
        validation={},
        versions={},
    )


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
