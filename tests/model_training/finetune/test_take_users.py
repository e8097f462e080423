"""`max_rows` takes whole users, drawn by the seed."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from model_training.finetune.run_plan import plan_run, take_users
from model_training.finetune.stages import sft
from services.core.errors import InputError
from tests.model_training.finetune.training_builders import a_config


def some_rows(num_users: int = 10) -> pa.Table:
    rows = [
        {"user_id": f"u{user}", "label": label} for user in range(num_users) for label in (1, 0)
    ]
    return pa.Table.from_pylist(rows)


def test_every_user_keeps_all_rows_and_the_classes_their_shares():
    taken = take_users(some_rows(), 7, seed=1)

    assert taken.num_rows == 6
    assert sum(taken["label"].to_pylist()) == 3
    assert len(set(taken["user_id"].to_pylist())) == 3


def test_the_seed_decides_whom():
    one, again, other = (take_users(some_rows(), 8, seed=seed) for seed in (1, 1, 2))

    assert one == again
    assert one != other


@pytest.mark.parametrize("max_rows", [0, 20, 21])
def test_all_rows_stay_if_none_or_enough_are_asked_for(max_rows: int):
    assert take_users(some_rows(), max_rows, seed=1) == some_rows()


def test_less_than_one_users_rows_is_refused():
    with pytest.raises(InputError, match=r"max_rows 1 is less than the 2 rows of one user; raise"):
        take_users(some_rows(), 1, seed=1)


def test_a_run_trains_on_the_rows_that_its_configuration_allows(
    data_with_examples: str, checkpoint: Path
):
    config = a_config(checkpoint)
    everything = plan_run(data_with_examples, config, config.base_model, sft.STAGE)

    fewer = replace(config, max_rows=4)
    plan = plan_run(data_with_examples, fewer, config.base_model, sft.STAGE)

    assert plan.rows.num_rows == 4 < everything.rows.num_rows
    assert plan.validation == everything.validation
    assert plan.fingerprint != everything.fingerprint
