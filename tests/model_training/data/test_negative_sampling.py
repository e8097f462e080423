"""Drawing negative samples: whom they may hit, and how often."""

from collections import Counter

import numpy as np
import pytest

from model_training.data.negative_sampling import (
    Draw,
    draw_hard,
    draw_near_era,
    draw_uniform,
    draw_weighted,
)
from model_training.rankers import fit_retrieval
from services.core.errors import RowRefused
from services.retrieval.cheap_rankers import CheapRankers
from tests.model_training.builders import some_histories

FROZEN_UNIFORM = [35, 38, 16, 9, 37]
FROZEN_WEIGHTED = [19, 48, 45, 47, 36]
HISTORY = some_histories()["u3"]


def draw(user: str, taken=(), *, num_items=50, num_negatives=5, purpose="test", seed=1):
    return draw_uniform(Draw(user, taken, num_negatives, purpose, seed), num_items).tolist()


def weigh(user: str, weights, taken=(), *, num_negatives=1):
    return draw_weighted(Draw(user, taken, num_negatives, "test", 1), np.array(weights)).tolist()


def near(user: str, eras, era, taken=(), *, num_negatives=20):
    draw = Draw(user, taken, num_negatives, "test", 1)
    return draw_near_era(draw, np.array(eras), era).tolist()


def test_a_users_negatives_are_distinct_and_never_taken():
    for user in range(100):
        taken = list(range(user % 40))
        negatives = draw(f"u{user}", taken)
        assert len(set(negatives)) == 5
        assert not set(negatives) & set(taken)


def test_a_draw_depends_on_user_purpose_and_seed_alone():
    assert draw("u1") == draw("u1")
    assert draw("u1") != draw("u2")
    assert draw("u1") != draw("u1", purpose="other")
    assert draw("u1") != draw("u1", seed=2)


def test_a_draw_is_the_same_on_every_machine_and_in_every_version():
    assert draw("u1") == FROZEN_UNIFORM
    assert weigh("u1", range(50), num_negatives=5) == FROZEN_WEIGHTED


def test_every_untaken_item_is_drawn_equally_often():
    drawn = Counter(
        index for user in range(4000) for index in draw(f"u{user}", [0, 1], num_items=12)
    )

    assert set(drawn) == set(range(2, 12))  # 2,000 times each, standard deviation 32
    assert all(abs(count - 2000) < 160 for count in drawn.values())


def test_exactly_enough_untaken_items_are_all_drawn():
    assert sorted(draw("u1", range(5), num_items=10)) == [5, 6, 7, 8, 9]


def test_a_user_who_took_nearly_everything_is_refused():
    with pytest.raises(RowRefused, match="'u1' took 6 of 10 items"):
        draw("u1", range(6), num_items=10)


def test_an_item_is_drawn_as_often_as_it_has_weight():
    drawn = Counter(weigh(f"u{user}", [1, 2, 0, 5])[0] for user in range(8000))

    assert set(drawn) == {0, 1, 3}  # 1,000, 2,000 and 5,000 times, standard deviations below 45
    assert abs(drawn[0] - 1000) < 180
    assert abs(drawn[1] - 2000) < 180
    assert abs(drawn[3] - 5000) < 180


def test_weighted_draws_are_distinct_and_never_taken():
    for user in range(100):
        drawn = weigh(f"u{user}", range(12), taken=[11, 10], num_negatives=5)
        assert len(set(drawn)) == 5
        assert not set(drawn) & {0, 10, 11}


def test_too_few_items_with_weight_are_refused():
    with pytest.raises(RowRefused, match="2 items that others took"):
        weigh("u1", [1, 1, 1, 0, 0], taken=[0], num_negatives=3)


def test_negatives_near_an_era_come_from_the_nearest_hundred_items():
    eras = np.arange(1000) / 999
    drawn = {index for user in range(200) for index in near(f"u{user}", eras, eras[500], [500])}

    assert drawn == set(range(450, 551)) - {500}


def test_negatives_near_the_newest_era_are_the_newest_items():
    eras = np.arange(1000) / 999
    drawn = {index for user in range(200) for index in near(f"u{user}", eras, 1.0, [999])}

    assert drawn == set(range(899, 999))


def test_items_without_an_era_and_taken_ones_are_not_drawn():
    eras = [np.nan, 0.1, 0.2, 0.3, np.nan, 0.4]

    assert sorted(near("u1", eras, 0.2, [2], num_negatives=3)) == [1, 3, 5]
    with pytest.raises(RowRefused, match="leaves 3 items with an era"):
        near("u1", eras, 0.2, [2], num_negatives=4)


def test_of_equally_near_items_all_are_drawn():
    eras = np.full(400, 0.5)
    drawn = {index for user in range(200) for index in near(f"u{user}", eras, 0.5, [])}

    assert drawn == set(range(400))


# --- hard negatives ------------------------------------------------------------------------------


@pytest.fixture
def rankers(data: str) -> CheapRankers:
    fit_retrieval.run(data, epochs=1)
    return CheapRankers.load(data)


def hard(rankers: CheapRankers, user: str, number: int, *, seed: int = 1, top: int = 100):
    return draw_hard(Draw(user, (), number, "hard", seed), rankers, HISTORY, top=top)


def test_hard_ones_are_the_top_of_what_the_history_before_the_target_points_at(rankers):
    drawn = hard(rankers, "u3", 5, top=5)

    top = rankers.retrieve(HISTORY[:-1], limit=5, exclude=HISTORY)
    assert sorted(drawn) == sorted(each.item_id for each in top)


def test_a_hard_draw_depends_on_the_seed_and_the_user_alone(rankers):
    drawn = hard(rankers, "u3", 6)

    assert hard(rankers, "u3", 6) == drawn
    assert hard(rankers, "u3", 6, seed=2) != drawn
    assert hard(rankers, "u99", 6) != drawn


def test_fewer_hard_ones_are_the_first_of_more(rankers):
    assert hard(rankers, "u3", 2) == hard(rankers, "u3", 6)[:2]


def test_a_user_for_whom_too_few_are_found_is_refused_with_the_number(rankers):
    with pytest.raises(RowRefused, match="find 5 items that user 'u3' did not take, fewer than 6"):
        hard(rankers, "u3", 6, top=5)
