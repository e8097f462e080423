"""Protocols: what they hold out, and that rankers see nothing of it."""

import pytest

from model_training.data.protocols import PROTOCOLS, find_protocol
from model_training.data.visible_items import visible_histories
from services.core.errors import InputError
from services.core.splits import split_users
from tests.model_training.builders import some_histories


def held_out_users() -> list[str]:
    split = split_users(list(some_histories()))
    return [user for user, part in split.items() if part != "train"]


def test_there_are_these_protocols_in_this_order():
    names = ["chrono-uniform", "chrono-popularity", "chrono-era", "paper", "full"]
    assert list(PROTOCOLS) == names


def test_each_protocol_names_the_rankers_that_have_not_seen_its_targets():
    assert find_protocol("chrono-era").retrieval == "retrieval"
    assert find_protocol("full").retrieval == "retrieval"
    assert find_protocol("paper").retrieval == "retrieval-popular"


def test_the_fusion_of_the_first_protocol_is_the_one_that_serves():
    assert find_protocol("chrono-uniform").ranker == "ranker"
    assert find_protocol("paper").ranker == "ranker-paper"


def test_an_unknown_protocol_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="'leave-one-out'; choose from chrono-uniform"):
        find_protocol("leave-one-out")


def test_training_users_are_visible_whole_and_others_without_their_target():
    histories = some_histories()
    visible = visible_histories(histories, "last")

    for user, history in histories.items():
        expected = history[:-1] if user in held_out_users() else history
        assert list(visible[user]) == expected


def test_the_popular_cut_hides_the_target_and_all_after_it():
    common = ["a", "b", "c", "d", "e", "f"]
    histories = {user: [*common, f"{user}-1", f"{user}-2"] for user in some_histories()}
    visible = visible_histories(histories, "popular")

    for user in held_out_users():
        assert list(visible[user]) == ["a", "b", "c", "d", "e"]


def test_what_held_out_users_took_does_not_decide_which_item_is_popular():
    user = held_out_users()[0]
    histories = {name: ["a", "b"] for name in some_histories()}
    # All held-out users took x to z; training users took only a and b.
    own = ["a", "b", "p", "q", "x", "y", "z"]
    changed = histories | dict.fromkeys(held_out_users(), own)

    # The six: a, b by popularity, then of equally unpopular ones the earliest. So z is none.
    assert list(visible_histories(changed, "popular")[user]) == ["a", "b", "p", "q", "x"]


def test_a_user_with_one_interaction_shows_nothing():
    user = held_out_users()[0]

    assert user not in visible_histories(some_histories() | {user: ["i1"]}, "last")


def test_nothing_is_hidden_for_serving():
    assert visible_histories(some_histories(), "none") == some_histories()
