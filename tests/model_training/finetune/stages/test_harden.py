"""The stage against hostile titles: what it keeps, what its loss is, that it learns and resumes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model_training.finetune.collation import AnswerCollator
from model_training.finetune.config import TrainConfig
from model_training.finetune.hostile_titles import HostileTitles
from model_training.finetune.run_plan import Work
from model_training.finetune.stages import harden
from model_training.finetune.trainer import hostile_titles, load_model
from model_training.finetune.validation_callback import row_margins
from services.core.errors import InputError
from tests.model_training.finetune.stage_builders import (
    require_same_weights_after_a_kill,
    stage_config,
    stage_work,
)


@pytest.fixture
def config(checkpoint: Path) -> TrainConfig:
    return stage_config(checkpoint, num_negatives=3, hostile_titles=0.6, batch_size=4)


@pytest.fixture
def work(data: str, config: TrainConfig, tmp_path: Path) -> Work:
    return stage_work(data, config, "harden", tmp_path / "start")


def a_trainer(work: Work, scratch: Path) -> harden.HardeningTrainer:
    return harden.build_trainer(work, *load_model(work), scratch)


def with_config(work: Work, **values: float) -> Work:
    return replace(work, config=replace(work.config, **values))


def test_a_run_uses_the_rows_it_will_see_and_others_with_another_seed(work: Work):
    rows = harden.rows_used(work)

    assert len(rows) == 8  # two steps of four
    assert rows == harden.rows_used(work)
    assert rows != harden.rows_used(with_config(work, seed=7))
    assert len(harden.rows_used(with_config(work, max_steps=-1))) == work.rows.num_rows


def test_an_items_own_title_comes_first_and_a_hostile_one_beside_it(work: Work):
    titles = hostile_titles(work)
    rows = harden.rows_used(with_config(work, max_steps=-1))
    asked = harden.AskedTwoWays(work.items, titles)(
        {
            "item_id": [row["item_id"] for row in rows],
            "preference": [row["preference"] for row in rows],
            "kept": [0.5] * len(rows),
        }
    )

    assert {len(prompts) for prompts in asked["prompts"]} == {1, 2}
    for row, prompts in zip(rows, asked["prompts"], strict=True):
        title = work.items[row["item_id"]].title
        assert all(title in messages[0].text for messages in prompts)
        assert len({messages[0].text for messages in prompts}) == len(prompts)
    assert asked["kept"] == [0.5] * len(rows)


def test_what_is_kept_are_the_margins_of_the_start_adapter(work: Work, tmp_path: Path):
    model, processor = load_model(work)
    rows = harden.rows_used(work)
    before = row_margins(model, AnswerCollator(processor), rows, work.items, batch_size=4)
    a_trainer(work, tmp_path / "scratch")

    kept = json.loads((tmp_path / "scratch" / "kept-margins.json").read_text())
    assert kept == pytest.approx(before)
    assert np.std(kept) > 0


def test_before_the_first_step_only_hostile_titles_cost(work: Work, tmp_path: Path):
    work = with_config(work, hostile_weight=3.0)
    trainer = a_trainer(work, tmp_path / "scratch")
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.eval()
    with torch.no_grad():
        loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)

    moved = (outputs["margins"] - batch["kept"]).square()
    own, hostile = moved[~batch["is_hostile"]], moved[batch["is_hostile"]]
    assert len(own) == 4
    assert 0 < len(hostile) <= 4
    assert float(own.max()) < 1e-6
    assert float(hostile.mean()) > 1e-3
    assert float(loss) == pytest.approx(float(own.mean() + 3 * hostile.mean()), rel=1e-4)


def test_a_batch_without_hostile_titles_costs_what_moved(work: Work, tmp_path: Path):
    trainer = a_trainer(work, tmp_path / "scratch")
    unchanged = HostileTitles(0.0, (), 0)
    asked = harden.AskedTwoWays(work.items, unchanged)(
        {"item_id": [next(iter(work.items))], "preference": ["Likes red."], "kept": [100.0]}
    )
    batch = trainer.data_collator([{name: values[0] for name, values in asked.items()}])

    assert float(trainer.compute_loss(trainer.model, batch).detach()) > 1000


def test_hostile_titles_come_to_move_less(work: Work, tmp_path: Path):
    trainer = a_trainer(with_config(work, max_steps=16), tmp_path / "scratch")
    trainer.train()

    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


def test_a_run_that_was_killed_goes_on_to_the_same_weights(work: Work, tmp_path: Path):
    require_same_weights_after_a_kill(harden.fit, work, tmp_path)


def test_a_run_without_hostile_titles_is_refused(work: Work, tmp_path: Path):
    with pytest.raises(InputError, match="set hostile_titles"):
        harden.fit(with_config(work, hostile_titles=0.0), tmp_path / "scratch", tmp_path / "out")
