"""The stage against hostile titles: what it keeps, what its loss is, that it learns and resumes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model_training.finetune.collation import PromptCollator
from model_training.finetune.config import TrainConfig
from model_training.finetune.hostile_titles import HostileTitles
from model_training.finetune.margins import row_margins
from model_training.finetune.run_plan import RunPlan
from model_training.finetune.stages import harden
from model_training.finetune.trainer import MarginTrainer, fit, hostile_titles, load_model
from services.core.errors import InputError
from tests.model_training.finetune.stage_builders import (
    require_same_weights_after_a_kill,
    stage_config,
    stage_plan,
)


@pytest.fixture
def config(checkpoint: Path) -> TrainConfig:
    return stage_config(checkpoint, num_negatives=3, hostile_titles=0.6, batch_size=4)


@pytest.fixture
def plan(data: str, config: TrainConfig, tmp_path: Path) -> RunPlan:
    return stage_plan(data, config, "harden", tmp_path / "start")


def a_trainer(plan: RunPlan, scratch: Path) -> MarginTrainer:
    return harden.build_trainer(plan, *load_model(plan), scratch)


def with_config(plan: RunPlan, **values: float) -> RunPlan:
    return replace(plan, config=replace(plan.config, **values))


def test_a_run_uses_the_rows_it_will_see_and_others_with_another_seed(plan: RunPlan):
    rows = harden.rows_used(plan)

    assert len(rows) == 8  # two steps of four
    assert rows == harden.rows_used(plan)
    assert rows != harden.rows_used(with_config(plan, seed=7))
    assert len(harden.rows_used(with_config(plan, max_steps=-1))) == plan.rows.num_rows


def test_an_items_own_title_comes_first_and_a_hostile_one_beside_it(plan: RunPlan):
    titles = hostile_titles(plan)
    rows = harden.rows_used(with_config(plan, max_steps=-1))
    asked = harden.PromptPairs(plan.items, titles)(
        {
            "item_id": [row["item_id"] for row in rows],
            "preference": [row["preference"] for row in rows],
            "reference": [0.5] * len(rows),
        }
    )

    assert {len(prompts) for prompts in asked["prompts"]} == {1, 2}
    for row, prompts in zip(rows, asked["prompts"], strict=True):
        title = plan.items[row["item_id"]].title
        assert all(title in messages[0].text for messages in prompts)
        assert len({messages[0].text for messages in prompts}) == len(prompts)
    numbers = [len(prompts) for prompts in asked["prompts"]]
    assert asked["reference"] == [[0.5] * number for number in numbers]
    assert asked["is_hostile"] == [[False, True][:number] for number in numbers]


def test_the_reference_margins_are_those_of_the_start_adapter(plan: RunPlan, tmp_path: Path):
    model, processor = load_model(plan)
    rows = harden.rows_used(plan)
    before = row_margins(model, PromptCollator(processor), rows, plan.items, batch_size=4)
    a_trainer(plan, tmp_path / "scratch")

    reference = json.loads((tmp_path / "scratch" / "kept-margins.json").read_text())
    assert reference == pytest.approx(before)
    assert np.std(reference) > 0


def test_before_the_first_step_only_hostile_titles_cost(plan: RunPlan, tmp_path: Path):
    plan = with_config(plan, hostile_weight=3.0)
    trainer = a_trainer(plan, tmp_path / "scratch")
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    with torch.no_grad():
        loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)

    moved = (outputs["margins"] - batch["reference"]).square()
    own, hostile = moved[~batch["is_hostile"]], moved[batch["is_hostile"]]
    assert len(own) == 4
    assert 0 < len(hostile) <= 4
    assert float(own.max()) < 1e-6
    assert float(hostile.mean()) > 1e-3
    assert float(loss) == pytest.approx(float(own.mean() + 3 * hostile.mean()), rel=1e-4)


def test_a_batch_without_hostile_titles_costs_what_moved(plan: RunPlan, tmp_path: Path):
    trainer = a_trainer(plan, tmp_path / "scratch")
    unchanged = HostileTitles(0.0, (), 0)
    asked = harden.PromptPairs(plan.items, unchanged)(
        {"item_id": [next(iter(plan.items))], "preference": ["Likes red."], "reference": [100.0]}
    )
    batch = trainer.data_collator([{name: values[0] for name, values in asked.items()}])

    assert float(trainer.compute_loss(trainer.model, batch).detach()) > 1000


def test_hostile_titles_come_to_move_less(plan: RunPlan, tmp_path: Path):
    trainer = a_trainer(with_config(plan, max_steps=16), tmp_path / "scratch")
    trainer.train()

    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_weights(plan: RunPlan, tmp_path: Path):
    require_same_weights_after_a_kill(plan, tmp_path)


def test_a_run_without_hostile_titles_is_refused(plan: RunPlan, tmp_path: Path):
    with pytest.raises(InputError, match="set hostile_titles"):
        fit(with_config(plan, hostile_titles=0.0), tmp_path / "scratch", tmp_path / "out")
