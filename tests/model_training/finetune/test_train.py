"""Fine-tuning: what is adapted, that it learns, resumes, and says how it was made."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from model_training.data import build_examples
from model_training.finetune import run_plan, train
from model_training.finetune.collation import IGNORED
from model_training.finetune.config import TrainConfig
from model_training.finetune.stages import sft
from model_training.finetune.trainer import load_model
from services.core.artifacts import Artifact
from services.core.prompts import SCORING_FINGERPRINT
from services.engines.adapter_manifest import read_adapter_manifest, require_servable
from services.engines.checkpoints import fingerprint_checkpoint
from tests.model_training.builders import write_world
from tests.model_training.finetune.training_builders import a_config


@pytest.fixture
def config(checkpoint: Path) -> TrainConfig:
    return a_config(checkpoint)


@pytest.fixture(scope="module")
def training(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Mapping[str, object]]:
    """A data folder with a finished training, and its result."""
    data = tmp_path_factory.mktemp("trained") / "data"
    write_world(str(data))
    build_examples.run(str(data), num_negatives=2)
    return data, train.run(str(data), a_config(checkpoint))


@pytest.fixture
def trained(training: tuple[Path, Mapping[str, object]], tmp_path: Path) -> str:
    """A copy of the data folder with a finished training."""
    return str(copytree(training[0], tmp_path / "trained"))


@pytest.fixture
def trainer(data_with_examples: str, config: TrainConfig, tmp_path: Path):
    plan = run_plan.plan_run(data_with_examples, config, config.base_model, sft.STAGE)
    plan = replace(plan, rows=plan.rows.slice(0, 8))
    return sft.build_trainer(plan, *load_model(plan), tmp_path / "scratch")


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


def test_an_adapter_is_saved_with_all_that_it_depends_on(training, checkpoint):
    data, result = training

    folder = data / "adapter"
    manifest = read_adapter_manifest(folder)
    require_servable(manifest, model=fingerprint_checkpoint(checkpoint))
    assert manifest.definition["scoring"] == SCORING_FINGERPRINT
    assert set(manifest.inputs) == {"examples", "items", "interactions", "preferences"}
    assert manifest.preferences_by == Artifact(str(data), "preferences").manifest().writer.identity
    assert (manifest.image_size, manifest.config["lora_rank"]) == (56, 4)
    assert (manifest.stage, manifest.parent, manifest.protocol) == ("sft", "", "chrono-uniform")
    assert 0 <= manifest.validation["auc"] <= 1
    spread = manifest.score_histogram
    assert sum(spread.counts) == manifest.counts["validation_rows"]
    validation = {f"validation_{name}": value for name, value in manifest.validation.items()}
    assert result == {**manifest.counts, **validation}


def test_a_saved_adapter_loads_on_its_base_and_names_no_folder(training, config):
    folder = training[0] / "adapter"
    base = AutoModelForImageTextToText.from_pretrained(config.base_model)
    assert PeftModel.from_pretrained(base, folder).active_adapter == "default"
    for file in folder.glob("*.json"):
        assert str(Path(config.base_model).parent) not in file.read_text()


def test_tensorboard_logs_are_written_and_checkpoints_are_cleared(training):
    scratch = training[0] / "training"
    assert list(scratch.rglob("events.out.tfevents.*"))
    assert not list(scratch.rglob("checkpoint-*"))


@pytest.mark.slow
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


def test_a_finished_training_is_not_repeated(training, trained, config):
    weights = Path(trained) / "adapter" / "adapter_model.safetensors"
    written = weights.stat().st_mtime_ns

    assert train.run(trained, config) == training[1]
    assert weights.stat().st_mtime_ns == written


def test_another_configuration_replaces_the_adapter(trained, config):
    train.run(trained, replace(config, learning_rate=1e-3))

    manifest = read_adapter_manifest(Path(trained) / "adapter")
    assert manifest.config["learning_rate"] == 1e-3


@pytest.mark.parametrize("left", ["adapter.unfinished", "adapter.replaced"])
@pytest.mark.slow
def test_what_a_kill_left_while_publishing_is_cleared(trained, config, left: str):
    (Path(trained) / left).mkdir()
    (Path(trained) / left / "adapter_config.json").write_text("{}")
    train.run(trained, replace(config, learning_rate=1e-3))

    assert [folder.name for folder in Path(trained).glob("adapter*")] == ["adapter"]
    assert len(list((Path(trained) / "adapter").iterdir())) == 3


@pytest.mark.parametrize("moved_last", ["adapter", "adapter.unfinished"])
@pytest.mark.slow
def test_a_kill_while_an_adapter_takes_the_place_of_an_earlier_one_is_made_good(
    trained, config, monkeypatch, moved_last: str
):
    rename = Path.rename

    def die(self: Path, target: Path) -> Path:
        if self.name == moved_last:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", die)
    with pytest.raises(KeyboardInterrupt):
        train.run(trained, replace(config, learning_rate=1e-3))
    monkeypatch.undo()
    train.run(trained, replace(config, learning_rate=1e-3))

    folder = Path(trained) / "adapter"
    assert read_adapter_manifest(folder).config["learning_rate"] == 1e-3
    assert [each.name for each in folder.parent.glob("adapter*")] == ["adapter"]


def test_half_a_removed_training_does_not_count_as_trained(trained, config):
    [scratch] = (Path(trained) / "training").iterdir()
    (scratch / "removing").mkdir()
    (scratch / "checkpoint-2").mkdir()
    train.run(trained, config)

    assert not {"removing", "trained", "checkpoint-2"} & {each.name for each in scratch.iterdir()}


def test_of_several_processes_the_main_one_alone_reports_and_pushes(
    data_with_examples, config, monkeypatch
):
    config = replace(config, push_to_hub="someone/adapter")
    pushed: list[str] = []

    def upload(folder: Path, name: str) -> str:
        pushed.append(name)
        return f"hub://{name}"

    train.run(data_with_examples, config, upload=upload)
    monkeypatch.setenv("RANK", "1")
    assert train.run(data_with_examples, config, upload=upload) == {}
    assert pushed == ["someone/adapter"]


def test_an_estimate_counts_all_steps_and_leaves_nothing(data_with_examples, config):
    config = replace(config, max_steps=-1, num_epochs=2, gradient_accumulation=2)
    result = train.run(data_with_examples, config, only_estimate=True)

    assert (result["rows"], result["rows_per_step"], result["steps"]) == (48, 8, 12)
    assert result["estimated_seconds"] == pytest.approx(12 * result["seconds_per_step"], rel=0.1)
    assert not (Path(data_with_examples) / "training").exists()
    assert not (Path(data_with_examples) / "adapter").exists()
