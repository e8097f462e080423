"""What is refused before hours are spent, and a broken loss while they are."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForImageTextToText

from model_training.data import build_examples
from model_training.data.example_checks import require_both_classes, require_sound_examples
from model_training.finetune import train
from model_training.finetune.config import TrainConfig
from model_training.finetune.run_plan import checkpoints, plan_run
from model_training.finetune.stages import sft
from model_training.finetune.trainer import load_model
from services.core.errors import ArtifactMismatch, EmptyDataset, InputError, ModelUnusable
from services.core.splits import split_users
from tests.model_training.builders import some_histories, write_world
from tests.model_training.finetune.training_builders import a_config

HISTORIES = {"u1": ["i1", "i2", "i3"]}  # the only user, who by the split is a test user


@pytest.fixture
def config(checkpoint: Path) -> TrainConfig:
    return a_config(checkpoint)


def examples(*rows: tuple[str, str, bool, str]) -> pa.Table:
    names = ("user_id", "item_id", "label", "split")
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("u1", "i3", True, "test"), ("u1", "i9", False, "train")], "in two splits, test and tr"),
        ([("u1", "i3", True, "train")], "a train user in the examples, and a test user"),
        ([("u2", "i3", True, "test")], "'u2' has examples and no interactions"),
        ([("u1", "i3", True, "test"), ("u1", "i1", False, "test")], "the negative 'i1' of user"),
        ([("u1", "i3", True, "test"), ("u1", "i3", False, "test")], "the negative 'i3' of user"),
        ([("u1", "i2", True, "test")], "the positive 'i2' of user 'u1' is not the target"),
    ],
)
def test_examples_that_contradict_the_interactions_are_refused(rows: list, message: str):
    with pytest.raises(ArtifactMismatch, match=f"{message}.*run `msr build-examples` again"):
        require_sound_examples(examples(*rows), HISTORIES)


def test_sound_examples_pass():
    require_sound_examples(
        examples(("u1", "i3", True, "test"), ("u1", "i9", False, "test")), HISTORIES
    )


@pytest.mark.parametrize(
    ("label", "message"),
    [(True, r"training examples have no negative \(answer No\)"), (False, "no positive")],
)
def test_a_class_that_never_appears_is_named(label: bool, message: str):
    with pytest.raises(EmptyDataset, match=message):
        require_both_classes(examples(("u1", "i3", label, "train")), "training")


def test_training_reads_the_interactions_that_examples_must_fit(data_with_examples, config):
    part = next(Path(data_with_examples).glob("examples/*/part-00000.parquet"))
    rows = pa.parquet.read_table(part).to_pylist()
    negative = next(row for row in rows if not row["label"])
    negative["item_id"] = some_histories()[negative["user_id"]][0]
    pa.parquet.write_table(pa.Table.from_pylist(rows), part)

    with pytest.raises(ArtifactMismatch, match="is an item they took"):
        train.run(data_with_examples, config)


def test_no_validation_user_is_refused_before_training(tmp_path, config):
    data = str(tmp_path)
    split = split_users(list(some_histories()))
    write_world(data, users=[user for user, part in split.items() if part == "train"])
    build_examples.run(data, num_negatives=1)

    with pytest.raises(EmptyDataset, match="there are no validation users"):
        train.run(data, config)


def test_a_single_validation_user_is_too_few_to_calibrate_on(data_with_examples, config):
    with pytest.raises(EmptyDataset, match="calibration needs at least two"):
        train.run(data_with_examples, replace(config, max_validation_users=1))


def test_more_negatives_than_the_examples_hold_are_refused(data_with_examples, config):
    with pytest.raises(ArtifactMismatch, match="build-examples --negatives 3"):
        train.run(data_with_examples, replace(config, num_negatives=3))


def test_hard_negatives_that_the_examples_lack_are_refused(data_with_examples, config):
    with pytest.raises(ArtifactMismatch, match="build-examples --hard-negatives 2"):
        train.run(data_with_examples, replace(config, num_hard_negatives=2))


def test_examples_of_older_preferences_are_refused(data_with_examples, config):
    write_world(data_with_examples, users=list(some_histories())[:20])

    with pytest.raises(ArtifactMismatch, match="run `msr build-examples` again"):
        train.run(data_with_examples, config)


def test_examples_of_another_prompt_are_refused(data_with_examples, config):
    manifest = next(Path(data_with_examples).glob("examples/manifest.json"))
    content = json.loads(manifest.read_text())
    content["definition"]["prompt"] = "older"
    manifest.write_text(json.dumps(content))

    with pytest.raises(ArtifactMismatch, match="scoring prompt older"):
        train.run(data_with_examples, config)


def test_a_remote_data_folder_needs_a_local_output(config):
    with pytest.raises(InputError, match="--output"):
        train.run("memory://data", config)


def test_an_output_folder_with_anything_else_is_left_alone(data_with_examples, config, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")

    with pytest.raises(InputError, match="`msr train` did not make it"):
        train.run(data_with_examples, config, output=str(tmp_path / "out"))
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"trackers": ("wandb",)}, {}, "pip install wandb"),
        ({"method": "qlora", "precision": "bfloat16"}, {}, "qlora needs a CUDA GPU"),
        ({"precision": "float16"}, {}, "float16 needs a CUDA GPU"),
        ({"method": "full"}, {"stage": "dpo"}, "continues an adapter"),
        ({}, {"stage": "rank"}, "run `msr train --stage sft` first"),
        ({}, {"start_adapter": "there"}, "--start-adapter is for stages after sft"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="some of this is refused without a GPU alone")
def test_what_cannot_be_done_here_is_refused_with_its_reason(
    data_with_examples, config, changes: dict[str, Any], options: dict[str, Any], message: str
):
    with pytest.raises(InputError, match=message):
        train.run(data_with_examples, replace(config, **changes), **options)
    assert not (Path(data_with_examples) / "training").exists()


def test_a_base_model_that_is_not_there_is_named(data_with_examples, config):
    with pytest.raises(ModelUnusable, match="no-such-model"):
        train.run(data_with_examples, config, model="./no-such-model")


def test_a_broken_base_model_ends_the_run_at_its_first_loss(
    data_with_examples, config, checkpoint, tmp_path
):
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    model = AutoModelForImageTextToText.from_pretrained(broken)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(torch.nan)
    model.save_pretrained(broken)

    with pytest.raises(ModelUnusable, match=r"the loss is nan at step 1; .*nothing was published"):
        train.run(data_with_examples, config, model=str(broken))


def _spoil_weights(trainer: Any) -> Callable[..., None]:
    """Makes the model's loss not a number from the third step on."""

    def before_step(module: Any, *_: Any) -> None:
        if trainer.state.global_step == 2:
            for name, weight in module.named_parameters():
                if "lora_B" in name:
                    weight.data.fill_(torch.inf)

    return before_step


def test_a_loss_that_breaks_on_the_way_keeps_the_checkpoint_before_it(
    data_with_examples, config, tmp_path
):
    config = replace(config, max_steps=6, log_steps=100, checkpoint_steps=2)
    plan = plan_run(data_with_examples, config, config.base_model, sft.STAGE)
    trainer = sft.build_trainer(plan, *load_model(plan), tmp_path / "scratch")
    trainer.model.register_forward_pre_hook(_spoil_weights(trainer))

    with pytest.raises(ModelUnusable, match=r"at step 3; .*the checkpoint of step 2 is kept"):
        trainer.train()
    assert [folder.name for folder in checkpoints(tmp_path / "scratch")] == ["checkpoint-2"]


def test_validation_users_with_unlike_numbers_of_rows_are_refused_before_training(
    data_with_examples, config
):
    part = next(Path(data_with_examples).glob("examples/*/part-00000.parquet"))
    rows = pa.parquet.read_table(part).to_pylist()
    lost = next(row for row in rows if row["split"] == "validation" and not row["label"])
    rows.remove(lost)
    pa.parquet.write_table(pa.Table.from_pylist(rows), part)

    with pytest.raises(ArtifactMismatch, match=r"validation user .* rows and 1 targets, others"):
        train.run(data_with_examples, config)
    assert not (Path(data_with_examples) / "training").exists()


def test_a_layer_that_the_model_has_not_is_named(data_with_examples, config):
    with pytest.raises(InputError, match="no layer 'qproj'"):
        train.run(data_with_examples, replace(config, lora_layers=("q_proj", "qproj")))


def damaged(folder: Path, copy: Path) -> Path:
    """The folder with half of its weights."""
    shutil.copytree(folder, copy)
    weights = next(copy.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return copy


def test_damaged_weights_of_the_base_are_named(data_with_examples, config, checkpoint, tmp_path):
    broken = damaged(checkpoint, tmp_path / "broken")

    with pytest.raises(ModelUnusable, match=r"cannot load the base model .*broken"):
        train.run(data_with_examples, config, model=str(broken))


@pytest.mark.parametrize("stage", ["dpo", "rank"])
def test_an_adapter_with_weights_of_another_is_not_gone_on_with(
    data_with_examples, config, tmp_path, stage
):
    train.run(data_with_examples, config)
    mixed = damaged(Path(data_with_examples) / "adapter", tmp_path / "mixed")

    with pytest.raises(ModelUnusable, match="the files of one training"):
        train.run(data_with_examples, config, stage=stage, start_adapter=str(mixed))


def test_an_adapter_that_saw_covers_of_another_size_is_not_gone_on_with(data_with_examples, config):
    train.run(data_with_examples, config)
    manifest = Path(data_with_examples) / "adapter" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"image_size": 56', '"image_size": 336'))

    with pytest.raises(ArtifactMismatch, match="images of 336 pixels, the items have 56"):
        train.run(data_with_examples, config, stage="rank")


SQUARE, WIDE, TALL = [56, 56], [56, 84], [84, 56]


def rewrite(manifest: Path, **fields: Any) -> None:
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | fields))


@pytest.mark.parametrize(
    ("of_adapter", "of_items", "message"),
    [
        (None, [SQUARE], r"56 pixels, the items .* `--fit grid` \(height x width: 56 x 56\)"),
        ([SQUARE], None, r"`--fit grid` \(height x width: 56 x 56\), the items have 56 pixels"),
        ([SQUARE, WIDE], [SQUARE, TALL], r"56 x 56, 56 x 84\), the items .* 56 x 56, 84 x 56\)"),
    ],
)
def test_an_adapter_that_saw_covers_of_other_shapes_is_not_gone_on_with(
    data_with_examples, config, of_adapter: list | None, of_items: list | None, message: str
):
    train.run(data_with_examples, config)
    rewrite(Path(data_with_examples) / "adapter" / "manifest.json", image_shapes=of_adapter)
    items = Path(data_with_examples) / "items" / "manifest.json"
    shapes = [[*size, 36] for size in of_items or ()]
    rewrite(items, definition={"image_size": 56, "image_shapes": shapes})

    with pytest.raises(ArtifactMismatch, match=f"{message}; start from one that was trained on"):
        train.run(data_with_examples, config, stage="rank")
