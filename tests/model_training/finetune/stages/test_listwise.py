"""The listwise stage: who stands in a group, what its loss is, and that it learns and resumes."""

from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs

from model_training.finetune.collation import PromptCollator
from model_training.finetune.config import TrainConfig
from model_training.finetune.margins import row_margins
from model_training.finetune.run_plan import RunPlan
from model_training.finetune.stages import listwise
from model_training.finetune.stages.listwise import group_rows
from model_training.finetune.trainer import add_callbacks, fit, load_model
from model_training.finetune.validation_callback import METRIC_AFTER_SFT
from services.core.errors import ArtifactMismatch
from tests.model_training.finetune.stage_builders import (
    require_same_weights_after_a_kill,
    some_rows,
    stage_config,
    stage_plan,
)


@pytest.fixture
def config(checkpoint: Path) -> TrainConfig:
    return stage_config(checkpoint, num_negatives=3, rank_negatives=3, batch_size=2)


@pytest.fixture
def plan(data: str, config: TrainConfig, tmp_path: Path) -> RunPlan:
    prepared = stage_plan(data, config, "rank", tmp_path / "start")
    return replace(prepared, rows=prepared.rows.slice(0, 16))


@pytest.fixture
def trainer(plan: RunPlan, tmp_path: Path):
    return listwise.build_trainer(plan, *load_model(plan), tmp_path / "scratch")


def test_a_group_is_the_target_then_the_hard_then_the_uniform_negatives_of_one_user():
    rows = some_rows({"u1": "p e1 e2 h1", "u2": "q e3 e4 h2"})

    assert [group["item_ids"] for group in group_rows(rows, 3)] == [
        ["p", "h1", "e1", "e2"],
        ["q", "h2", "e3", "e4"],
    ]


def test_uniform_negatives_for_two_groups_give_two_with_the_same_hard_ones():
    rows = some_rows({"u1": "p e1 e2 e3 e4 h1"})

    groups = [group["item_ids"] for group in group_rows(rows, 3)]
    assert groups == [["p", "h1", "e1", "e2"], ["p", "h1", "e3", "e4"]]


def test_hard_negatives_alone_can_fill_a_group():
    rows = some_rows({"u1": "p e1 h1 h2 h3"})

    assert [group["item_ids"] for group in group_rows(rows, 2)] == [["p", "h1", "h2"]]


def test_a_group_that_the_examples_cannot_fill_is_refused():
    with pytest.raises(ArtifactMismatch, match=r"4 negatives .* user 'u1': 1 hard"):
        group_rows(some_rows({"u1": "p e1 e2 h1"}), 4)


def test_the_loss_is_the_softmax_of_the_margins_over_each_group(trainer):
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    with torch.no_grad():
        loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)

    assert outputs["margins"].shape == (8,)
    shares = outputs["margins"].view(2, 4).softmax(dim=1)
    assert float(loss) == pytest.approx(float(-shares[:, 0].log().mean()), rel=1e-5)


def test_a_high_temperature_makes_all_candidates_alike(plan: RunPlan, tmp_path: Path):
    plan = replace(plan, config=replace(plan.config, rank_temperature=1e6))
    trainer = listwise.build_trainer(plan, *load_model(plan), tmp_path / "scratch")
    batch = next(iter(trainer.get_train_dataloader()))

    loss = trainer.compute_loss(trainer.model, batch).detach()
    assert float(loss) == pytest.approx(log(4), abs=1e-4)


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_the_loss_falls(plan: RunPlan, tmp_path: Path, gradient_checkpointing: bool):
    longer = replace(plan.config, max_steps=12, gradient_checkpointing=gradient_checkpointing)
    plan = replace(plan, config=longer)
    trainer = listwise.build_trainer(plan, *load_model(plan), tmp_path / "scratch")
    trainer.train()

    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


def test_only_the_start_adapter_learns_on(trainer):
    learning = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]

    assert learning
    assert all(".language_model." in name and "lora_" in name for name in learning)


def test_on_its_way_it_is_validated_by_the_order_at_the_top(plan: RunPlan, tmp_path: Path):
    plan = replace(plan, config=replace(plan.config, evaluate_steps=1, num_checkpoints=3))
    model, processor = load_model(plan)
    trainer = listwise.build_trainer(plan, model, processor, tmp_path / "scratch")
    add_callbacks(trainer, plan)
    trainer.train()

    logs = trainer.state.log_history
    found = [log[f"eval_{METRIC_AFTER_SFT}"] for log in logs if f"eval_{METRIC_AFTER_SFT}" in log]
    rows = plan.validation.to_pylist()
    margins = row_margins(model, PromptCollator(processor), rows, plan.items, batch_size=4)
    by_user = np.reshape(margins, (3, 4))  # the target first
    positions = 1 + (by_user > by_user[:, :1]).sum(axis=1)
    assert len(found) == 3  # the start adapter, and after each step
    assert found[-1] == pytest.approx(np.mean(1 / positions))


def test_a_stage_that_gained_nothing_says_so(plan: RunPlan, tmp_path: Path):
    config = replace(plan.config, evaluate_steps=1, learning_rate=1e-12)
    with capture_logs() as logs:
        fit(replace(plan, config=config), tmp_path / "scratch", tmp_path / "trained")

    [told] = [entry for entry in logs if entry["event"] == "stage_gained_nothing"]
    assert told["best"] == told["at_the_start"]


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_weights(plan: RunPlan, tmp_path: Path):
    require_same_weights_after_a_kill(plan, tmp_path)
