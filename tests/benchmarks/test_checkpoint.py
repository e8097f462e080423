"""A random checkpoint works in both sides' hands and never ends an answer early."""

from pathlib import Path

import pytest
from safetensors import safe_open

from benchmarks.support.random_model import write_adapter, write_checkpoint
from benchmarks.support.reference_loop import ReferenceLoop
from benchmarks.support.synthetic_catalogue import (
    draw_items,
    draw_preference,
    draw_preference_prompts,
)
from services.core.scoring import score_candidates
from services.engines.adapter_manifest import read_adapter_manifest
from services.engines.checkpoints import fingerprint_checkpoint
from services.engines.local.engine import LocalEngine


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("random") / "checkpoint")


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> ReferenceLoop:
    return ReferenceLoop(checkpoint)


def test_weights_have_their_published_names(checkpoint: Path):
    with safe_open(checkpoint / "model.safetensors", "pt") as weights:
        prefixes = {name.split(".")[0] for name in weights.keys()}  # noqa: SIM118 - no mapping
    assert prefixes == {"vision_tower", "multi_modal_projector", "image_newline", "language_model"}


def test_the_same_seed_gives_the_same_weights(checkpoint: Path, tmp_path: Path):
    again = write_checkpoint(tmp_path / "again")
    assert fingerprint_checkpoint(again) == fingerprint_checkpoint(checkpoint)


@pytest.mark.slow
async def test_the_reference_loop_and_an_engine_give_the_same_margins(checkpoint, reference):
    preference, items = draw_preference("user"), draw_items("new", 2)
    engine = LocalEngine.load(str(checkpoint))

    scored = await score_candidates(engine.score, preference, items, engine.identity.calibration)
    await engine.close()

    margins = reference.score(preference, items, num_tokens=1)
    assert [candidate.margin for candidate in scored] == pytest.approx(margins, abs=1e-3)


@pytest.mark.slow
def test_answers_differ_from_item_to_item(reference):
    margins = reference.score(draw_preference("user"), draw_items("new", 2), num_tokens=1)
    assert abs(margins[0] - margins[1]) > 1e-3


@pytest.mark.slow
def test_no_answer_ends_before_its_limit(reference):
    prompts = draw_preference_prompts("wave", 3)
    assert reference.write_preferences(prompts, 20) == 60


def test_an_adapter_belongs_to_its_base(checkpoint: Path, tmp_path: Path):
    adapter = write_adapter(tmp_path / "adapter", checkpoint)
    assert read_adapter_manifest(adapter).model == fingerprint_checkpoint(checkpoint)
