"""The preference stage: its reference, its pairs, and that it learns and resumes."""

from dataclasses import replace
from math import log
from pathlib import Path

import pytest
import torch

from model_training.finetune.config import TrainConfig
from model_training.finetune.run_plan import RunPlan
from model_training.finetune.stages import dpo
from model_training.finetune.trainer import load_model
from tests.model_training.finetune.stage_builders import (
    require_same_weights_after_a_kill,
    stage_config,
    stage_plan,
)


@pytest.fixture
def config(checkpoint: Path) -> TrainConfig:
    return stage_config(
        checkpoint, num_negatives=1, batch_size=4, warmup_fraction=0.0, dpo_beta=1.0
    )


@pytest.fixture
def plan(data: str, config: TrainConfig, tmp_path: Path) -> RunPlan:
    prepared = stage_plan(data, config, "dpo", tmp_path / "start")
    return replace(prepared, rows=prepared.rows.slice(0, 8))


@pytest.fixture
def trainer(plan: RunPlan, tmp_path: Path):
    return dpo.build_trainer(plan, *load_model(plan), tmp_path / "scratch")


def test_the_first_loss_is_log_2_because_the_reference_is_the_start_adapter(trainer):
    trainer.train()

    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(log(2), abs=1e-4)
    assert losses[1] != pytest.approx(log(2), abs=1e-4)


def test_the_start_adapter_is_no_reference_that_the_base_model_would_be(plan, tmp_path):
    """Else the test above would hold for a reference that is the base model, too."""
    model, processor = load_model(plan)
    trainer = dpo.build_trainer(plan, model, processor, tmp_path / "scratch")
    batch = next(iter(trainer.get_train_dataloader()))
    asked = {name: values for name, values in batch.items() if name != "completion_mask"}
    with torch.no_grad():
        adapted = model(**asked).logits
        with model.disable_adapter():
            base = model(**asked).logits

    assert float((adapted - base).abs().max()) > 0.1


def test_the_reference_never_learns(trainer):
    trainer.train()

    weights = dict(trainer.model.named_parameters())
    moved = {
        name: float((weights[name.replace(".default.", ".ref.")] - weight).abs().max())
        for name, weight in weights.items()
        if ".default." in name
    }
    assert max(moved.values()) > 1e-3
    assert not [name for name in weights if ".ref." in name and weights[name].requires_grad]


def test_a_target_prefers_yes_and_a_negative_sample_no(trainer):
    rows = [trainer.train_dataset[number] for number in range(4)]
    batch = trainer.data_collator(rows)

    answers = batch["input_ids"][batch["completion_mask"] == 1]  # one a row, the chosen first
    words = trainer.processing_class.tokenizer.batch_decode(answers[:, None])
    assert [word.strip() for word in words] == ["Yes", "No"] * 2 + ["No", "Yes"] * 2


def test_the_loss_falls_as_margins_move_towards_the_preferred_answers(plan, tmp_path):
    plan = replace(plan, config=replace(plan.config, max_steps=10))
    trainer = dpo.build_trainer(plan, *load_model(plan), tmp_path / "scratch")
    trainer.train()

    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * log(2)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_weights(plan: RunPlan, tmp_path: Path):
    require_same_weights_after_a_kill(plan, tmp_path)
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
