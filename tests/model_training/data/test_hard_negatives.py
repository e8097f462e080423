"""Hard negatives come from where the user's history points, and from the user's own seed."""

import pytest

from model_training.data.hard_negatives import HardNegatives
from model_training.data.inputs import open_inputs
from model_training.rankers import fit_retrieval
from services.core.errors import RowRefused
from services.retrieval.cheap_rankers import CheapRankers
from tests.model_training.builders import some_histories

HISTORY = some_histories()["u3"]


@pytest.fixture
def data_with_rankers(data: str) -> str:
    fit_retrieval.run(data, epochs=1)
    return data


def test_they_are_the_top_of_what_the_history_before_the_target_points_at(data_with_rankers: str):
    drawn = HardNegatives(open_inputs(data_with_rankers), seed=1, top=5).draw("u3", HISTORY, 5)

    rankers = CheapRankers.load(data_with_rankers)
    top = rankers.retrieve(HISTORY[:-1], limit=5, exclude=HISTORY)
    assert sorted(drawn) == sorted(each.item_id for each in top)


def test_a_draw_depends_on_the_seed_and_the_user_alone(data_with_rankers: str):
    first, again = (
        HardNegatives(open_inputs(data_with_rankers), seed=1),
        HardNegatives(open_inputs(data_with_rankers), seed=1),
    )
    other_seed = HardNegatives(open_inputs(data_with_rankers), seed=2)
    again.draw("u4", some_histories()["u4"], 3)

    drawn = first.draw("u3", HISTORY, 6)
    assert again.draw("u3", HISTORY, 6) == drawn
    assert other_seed.draw("u3", HISTORY, 6) != drawn
    assert first.draw("u99", HISTORY, 6) != drawn


def test_fewer_are_the_first_of_more(data_with_rankers: str):
    negatives = HardNegatives(open_inputs(data_with_rankers), seed=1)

    assert negatives.draw("u3", HISTORY, 2) == negatives.draw("u3", HISTORY, 6)[:2]


def test_a_user_for_whom_too_few_are_found_is_refused_with_the_number(data_with_rankers: str):
    with pytest.raises(RowRefused, match="find 5 items that user 'u3' did not take, fewer than 6"):
        HardNegatives(open_inputs(data_with_rankers), seed=1, top=5).draw("u3", HISTORY, 6)
