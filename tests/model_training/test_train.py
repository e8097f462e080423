"""Fine-tuning: what is adapted, that it learns, resumes, and says how it was made."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from structlog.testing import capture_logs
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback

from model_training import build_examples, train
from model_training.collation import IGNORED
from model_training.config import TrainConfig
from model_training.inputs import read_items
from services.core.artifacts import Artifact
from services.core.errors import ArtifactMismatch, EmptyDataset, InputError, ModelUnusable
from services.core.prompts import SCORING_FINGERPRINT
from services.core.splits import split_users
from services.engines.adapters import read_adapter_manifest, require_servable
from services.engines.checkpoints import fingerprint_checkpoint
from tests.model_training.builders import some_histories, write_world


@pytest.fixture
def config(checkpoint: Path) -> TrainConfig:
    return TrainConfig(
        base_model=str(checkpoint),
        lora_rank=4,
        num_negatives=1,
        max_steps=2,
        batch_size=4,
        gradient_checkpointing=False,
        precision="float32",
        checkpoint_steps=1,
        log_steps=1,
        learning_rate=1e-2,
        max_validation_users=2,
    )


@pytest.fixture
def trainer(data_with_examples: str, config: TrainConfig, tmp_path: Path):
    rows = Artifact(data_with_examples, "examples").read().slice(0, 8)
    model = AutoModelForImageTextToText.from_pretrained(config.base_model, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(config.base_model)
    items = read_items(data_with_examples, set(rows["item_id"].to_pylist()))
    return train.build_trainer(config, model, processor, rows, items, tmp_path / "scratch")


def test_only_the_language_model_is_adapted_and_nothing_else_is_trained(trainer):
    trained = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]

    assert len(trained) == 4 * 7 * 2  # layers, linear layers in each, A and B
    assert all("language_model.layers" in name and "lora_" in name for name in trained)
    assert not [name for name in trained if "vision" in name or "projector" in name]


def test_the_trainers_own_batch_supervises_the_answer_and_the_end_alone(trainer):
    batch = next(iter(trainer.get_train_dataloader()))

    for labels in batch["labels"]:
        text = trainer.processing_class.tokenizer.decode(labels[labels != IGNORED])
        assert text in (" Yes</s>", " No</s>")


def test_the_loss_falls(trainer):
    trainer.args.max_steps = 12
    trainer.train()

    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]


def test_an_adapter_is_saved_with_all_that_it_depends_on(data_with_examples, config, checkpoint):
    result = train.run(data_with_examples, config)

    folder = Path(data_with_examples) / "adapter"
    manifest = read_adapter_manifest(folder)
    require_servable(manifest, model=fingerprint_checkpoint(checkpoint))
    assert manifest.definition["scoring"] == SCORING_FINGERPRINT
    assert set(manifest.inputs) == {"examples", "items", "interactions", "preferences"}
    assert (manifest.image_size, manifest.config["lora_rank"]) == (56, 4)
    assert 0 <= manifest.validation["validation_auc"] <= 1
    assert result == {**manifest.counts, **manifest.validation}


def test_a_saved_adapter_loads_on_its_base_and_names_no_folder(data_with_examples, config):
    train.run(data_with_examples, config)

    folder = Path(data_with_examples) / "adapter"
    base = AutoModelForImageTextToText.from_pretrained(config.base_model)
    assert PeftModel.from_pretrained(base, folder).active_adapter == "default"
    for file in folder.glob("*.json"):
        assert str(Path(config.base_model).parent) not in file.read_text()


def test_tensorboard_logs_are_written_and_checkpoints_are_cleared(data_with_examples, config):
    train.run(data_with_examples, config)

    scratch = Path(data_with_examples) / "training"
    assert list(scratch.rglob("events.out.tfevents.*"))
    assert not list(scratch.rglob("checkpoint-*"))


def test_half_precision_checkpointing_accumulation_and_workers_go_together(
    data_with_examples, config
):
    config = replace(
        config,
        precision="bfloat16",
        gradient_checkpointing=True,
        gradient_accumulation=2,
        num_workers=1,
    )

    assert train.run(data_with_examples, config)["training_rows"] == 48


def test_a_finished_training_is_not_repeated(data_with_examples, config):
    first = train.run(data_with_examples, config)
    weights = Path(data_with_examples) / "adapter" / "adapter_model.safetensors"
    written = weights.stat().st_mtime_ns

    assert train.run(data_with_examples, config) == first
    assert weights.stat().st_mtime_ns == written


def test_a_remote_data_folder_needs_a_local_output(config):
    with pytest.raises(InputError, match="--output"):
        train.run("memory://data", config)


def test_another_configuration_replaces_the_adapter(data_with_examples, config):
    train.run(data_with_examples, config)
    train.run(data_with_examples, replace(config, learning_rate=1e-3))

    manifest = read_adapter_manifest(Path(data_with_examples) / "adapter")
    assert manifest.config["learning_rate"] == 1e-3


def test_a_killed_training_resumes_and_ends_with_the_same_weights(
    data_with_examples, config, tmp_path
):
    config = replace(config, max_steps=4)
    train.run(data_with_examples, config, output=str(tmp_path / "whole"))

    work = train.prepare(data_with_examples, config, config.base_model)
    scratch = train.scratch_folder(work, Path(data_with_examples))
    _interrupt(work, scratch)
    (scratch / "checkpoint-3").mkdir()  # half-written
    with capture_logs() as events:
        train.run(data_with_examples, config, output=str(tmp_path / "cut"))

    assert events[0]["resumed"] == "checkpoint-2"
    whole = load_file(tmp_path / "whole" / "adapter_model.safetensors")
    cut = load_file(tmp_path / "cut" / "adapter_model.safetensors")
    assert all(torch.allclose(whole[name], cut[name], atol=1e-6) for name in whole)


class InterruptAtThree(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise KeyboardInterrupt


def _interrupt(work: train.Work, scratch: Path) -> None:
    """Train until the third step."""
    model = AutoModelForImageTextToText.from_pretrained(work.model, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(work.model)
    trainer = train.build_trainer(work.config, model, processor, work.rows, work.items, scratch)
    trainer.add_callback(InterruptAtThree())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()


def test_more_negatives_than_the_examples_hold_are_refused(data_with_examples, config):
    with pytest.raises(ArtifactMismatch, match="build-examples --negatives 3"):
        train.run(data_with_examples, replace(config, num_negatives=3))


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


def test_no_validation_user_is_refused_before_training(tmp_path, config):
    data = str(tmp_path)
    split = split_users(list(some_histories()))
    write_world(data, users=[user for user, part in split.items() if part == "train"])
    build_examples.run(data, num_negatives=1)

    with pytest.raises(EmptyDataset, match="validation examples"):
        train.run(data, config)


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

    with pytest.raises(ModelUnusable, match="the loss is nan at step 1"):
        train.run(data_with_examples, config, model=str(broken))
