"""An adapter merged into its base: the same answers, and a checkpoint that vLLM can load."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from model_training.demo.world import IMAGE_SIZE, DemoWorld
from model_training.finetune import merge_adapter
from model_training.finetune.checkpoint_weights import INDEX_FILE
from services.core.errors import ArtifactMismatch, InputError, ModelUnusable
from services.core.images import prepare_image
from services.core.prompts import Messages, scoring_messages
from services.core.records import Item, ItemId
from services.core.scoring import answer_margin
from services.deployment.assemble import DEMO_WEIGHTS
from services.engines.adapter_manifest import read_adapter_manifest
from services.engines.checkpoints import fingerprint_checkpoint, require_matching
from services.engines.local.engine import LocalEngine
from services.engines.models.model_files import load_processor
from services.engines.prompt_encoding import PromptEncoder

BASE = str(DEMO_WEIGHTS / "base")
ADAPTER = str(DEMO_WEIGHTS / "adapter")
PUBLISHED = ("vision_tower.vision_model.", "multi_modal_projector.", "image_newline",
             "language_model.model.", "language_model.lm_head.")  # fmt: skip


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("merge") / "merged")
    merge_adapter.run(BASE, ADAPTER, folder, dtype="float32")
    return folder


@pytest.fixture
def prompts() -> list[Messages]:
    return [
        scoring_messages(
            "Likes red colors, stars, striped style and a calm mood.",
            Item(ItemId(each.item_id), each.title, prepare_image(each.cover_png(), IMAGE_SIZE)),
        )
        for each in DemoWorld(num_items=16, num_users=1).items
    ]


@pytest.fixture
def a_copy(tmp_path: Path) -> Callable[..., Path]:
    """Copies a folder, to be spoiled."""

    def copy(folder: str) -> Path:
        target = tmp_path / f"copy-of-{Path(folder).name}"
        target.mkdir()
        for path in Path(folder).iterdir():
            (target / path.name).write_bytes(path.read_bytes())
        return target

    return copy


async def margins(engine: LocalEngine, prompts: list[Messages]) -> list[float]:
    answers = [await engine.score(prompt) for prompt in prompts]
    await engine.close()
    return [answer_margin(yes=answer.yes, no=answer.no) for answer in answers]


async def test_a_merged_checkpoint_answers_as_the_base_with_its_adapter(
    merged: str, prompts: list[Messages]
):
    by_adapter = await margins(LocalEngine.load(BASE, ADAPTER, device="cpu"), prompts)
    by_merged = await margins(LocalEngine.load(merged, device="cpu"), prompts)

    assert by_merged == pytest.approx(by_adapter, abs=1e-3)
    assert max(by_adapter) - min(by_adapter) > 1


def test_its_weights_have_the_published_names(merged: str):
    with safe_open(Path(merged) / "model.safetensors", "pt") as weights:
        names = list(weights.keys())

    assert all(name.startswith(PUBLISHED) for name in names)
    assert all(any(name.startswith(prefix) for name in names) for prefix in PUBLISHED)


def test_it_keeps_the_bases_own_files_and_the_adapters_manifest(merged: str):
    for name in ("tokenizer.json", "chat_template.jinja", "processor_config.json"):
        assert (Path(merged) / name).read_bytes() == (Path(BASE) / name).read_bytes()
    assert read_adapter_manifest(merged) == read_adapter_manifest(ADAPTER)
    assert json.loads((Path(merged) / "config.json").read_text())["dtype"] == "float32"


def test_a_base_in_shards_is_merged_alike(a_copy: Callable[..., Path], tmp_path: Path, merged: str):
    sharded, adapter = a_copy(BASE), a_copy(ADAPTER)
    with safe_open(sharded / "model.safetensors", "pt") as whole:
        names = sorted(whole.keys())
        halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
        for file, held in halves.items():
            save_file({name: whole.get_tensor(name) for name in held}, sharded / file)
    (sharded / "model.safetensors").unlink()
    index = {"weight_map": {name: file for file, held in halves.items() for name in held}}
    (sharded / INDEX_FILE).write_text(json.dumps(index))
    manifest = replace(read_adapter_manifest(ADAPTER), model=fingerprint_checkpoint(sharded))
    (adapter / "manifest.json").write_text(manifest.to_json())

    merge_adapter.run(str(sharded), str(adapter), str(tmp_path / "out"), dtype="float32")

    written = json.loads((tmp_path / "out" / INDEX_FILE).read_text())
    assert written["weight_map"] == index["weight_map"]
    with safe_open(Path(merged) / "model.safetensors", "pt") as whole:
        for file, held in halves.items():
            with safe_open(tmp_path / "out" / file, "pt") as half:
                assert sorted(half.keys()) == sorted(held)
                assert all(
                    torch.equal(half.get_tensor(name), whole.get_tensor(name)) for name in held
                )


@pytest.mark.parametrize(
    ("part", "other"), [("[/INST]", "(end)"), (r"<image>\n", "<image>"), ("</s>", ".</s>")]
)
def test_a_merged_checkpoint_of_another_template_is_refused(
    a_copy: Callable[..., Path], tmp_path: Path, part: str, other: str
):
    adapter, merged = a_copy(ADAPTER), tmp_path / "merged"
    encoding = PromptEncoder(load_processor(BASE)).fingerprint
    manifest = replace(read_adapter_manifest(ADAPTER), encoding=encoding)
    (adapter / "manifest.json").write_text(manifest.to_json())
    merge_adapter.run(BASE, str(adapter), str(merged))
    require_matching(str(merged), None)

    template = merged / "chat_template.jinja"
    assert part in template.read_text()
    template.write_text(template.read_text().replace(part, other))

    with pytest.raises(
        ArtifactMismatch, match=f"the chat template or tokenizer in {merged} is not"
    ):
        require_matching(str(merged), None)


def test_a_merge_that_is_done_is_not_done_again(merged: str):
    weights = Path(merged) / "model.safetensors"
    written = weights.stat().st_mtime_ns

    counts = merge_adapter.run(BASE, ADAPTER, merged, dtype="float32")

    assert counts["adapter"] == read_adapter_manifest(ADAPTER).fingerprint
    assert weights.stat().st_mtime_ns == written


def test_what_a_killed_merge_left_is_no_checkpoint_and_is_replaced(tmp_path: Path):
    out = tmp_path / "merged"
    left = tmp_path / ".merged.unfinished"
    left.mkdir()
    (left / "model.safetensors").write_text("half of it")

    merge_adapter.run(BASE, ADAPTER, str(out))

    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
    assert (out / "model.safetensors").stat().st_size > 1_000_000


def test_a_folder_with_anything_else_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")

    with pytest.raises(InputError, match="give --out another folder"):
        merge_adapter.run(BASE, ADAPTER, str(tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_same_merge_in_another_precision_does_not_replace_the_first(merged: str):
    with pytest.raises(InputError, match="give --out another folder"):
        merge_adapter.run(BASE, ADAPTER, merged, dtype="bfloat16")


def test_an_adapter_of_another_base_is_refused(a_copy: Callable[..., Path], tmp_path: Path):
    adapter = a_copy(ADAPTER)
    manifest = replace(read_adapter_manifest(ADAPTER), model="another")
    (adapter / "manifest.json").write_text(manifest.to_json())

    with pytest.raises(ArtifactMismatch, match="another"):
        merge_adapter.run(BASE, str(adapter), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_merged_checkpoint_is_no_base(merged: str, tmp_path: Path):
    with pytest.raises(ModelUnusable, match="merged checkpoint"):
        merge_adapter.run(merged, ADAPTER, str(tmp_path / "out"))


def test_a_broken_adapter_is_named_and_leaves_nothing_that_looks_whole(
    a_copy: Callable[..., Path], tmp_path: Path
):
    adapter = a_copy(ADAPTER)
    (adapter / "adapter_model.safetensors").write_bytes(b"not weights")
    manifest = replace(read_adapter_manifest(adapter), weights=fingerprint_checkpoint(adapter))
    (adapter / "manifest.json").write_text(manifest.to_json())

    with pytest.raises(ModelUnusable, match=f"cannot merge the adapter '{adapter}'"):
        merge_adapter.run(BASE, str(adapter), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
