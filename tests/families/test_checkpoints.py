"""The small checkpoints are laid out as published ones: names of weights, and several files."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.families.checkpoints import write_checkpoint

pytestmark = pytest.mark.families

_LLAVA = {"language_model.model.layers", "language_model.lm_head", "multi_modal_projector.linear_1"}
_LLAVA_NEXT = {*_LLAVA, "image_newline", "vision_tower.vision_model.encoder"}
_PIXTRAL = {*_LLAVA, "vision_tower.transformer.layers"}
# Some of the names in each published checkpoint's `model.safetensors.index.json`.
PUBLISHED: Mapping[str, set[str]] = {
    **dict.fromkeys(("mistral", "llama-3", "qwen-72b", "onevision"), _LLAVA_NEXT),
    "qwen-2.5": {"model.layers", "lm_head.weight", "visual.blocks", "visual.merger.mlp"},
    "qwen-3": {"model.language_model.layers", "lm_head.weight", "model.visual.blocks"},
    "internvl-3": {*_LLAVA, "vision_tower.encoder.layer"},
    "gemma-3": {
        "language_model.model.layers",
        "multi_modal_projector.mm_input_projection_weight",
        "vision_tower.vision_model.encoder",
    },
    "mistral-3": {*_PIXTRAL, "multi_modal_projector.patch_merger"},
    "pixtral": _PIXTRAL,
    "smolvlm": {"model.text_model.layers", "model.connector.modality_projection", "lm_head.weight"},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_have_published_names_in_several_files(name: str, tmp_path: Path):
    write_checkpoint(name, tmp_path)

    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index.values())) > 1
    for prefix in PUBLISHED[name]:
        assert any(weight.startswith(prefix) for weight in index), prefix
