"""The cut and the split of users."""

import pytest

from services.core.errors import HistoryTooShort
from services.core.records import UserId
from services.core.splits import (
    cut_at_popular,
    cut_history,
    hold_out,
    leave_last_out,
    split_users,
    training_popularity,
)


def test_the_target_is_the_last_item_and_the_history_everything_before():
    assert leave_last_out(["a", "b", "c"]) == (["a", "b"], "c")


@pytest.mark.parametrize("history", [[], ["a"]])
def test_a_history_without_a_target_is_refused(history):
    with pytest.raises(HistoryTooShort, match=f"{len(history)} interaction"):
        leave_last_out(history)


def test_a_cut_of_none_sees_everything():
    assert cut_history(["a"], "none") == ["a"]


def test_the_popular_target_is_the_last_of_the_six_most_popular():
    history = ["a", "b", "c", "d", "e", "f", "g", "h"]
    popularity = {"a": 9, "b": 9, "c": 9, "d": 1, "e": 9, "f": 9, "g": 9, "h": 2}

    assert cut_at_popular(history, popularity) == (["a", "b", "c", "d", "e", "f"], "g")


def test_of_equally_popular_items_the_earlier_are_among_the_six():
    assert cut_at_popular(list("abcdefgh"), {}) == (list("abcde"), "f")


def test_the_target_of_a_short_history_is_its_last_item():
    assert cut_at_popular(["a", "b"], {"a": 5}) == (["a"], "b")


@pytest.mark.parametrize("history", [[], ["a"]])
def test_a_history_without_a_popular_target_is_refused(history):
    with pytest.raises(HistoryTooShort):
        cut_at_popular(history, {"a": 1})


def test_the_popular_cut_shows_nothing_at_or_after_its_target():
    popularity = dict.fromkeys("abcdef", 2)

    assert cut_history(list("abcdefgh"), "popular", popularity) == list("abcde")


def test_the_popular_cut_without_popularity_is_refused():
    with pytest.raises(ValueError, match="needs the popularity"):
        cut_history(["a", "b"], "popular")


def test_a_cut_of_none_has_no_target():
    with pytest.raises(ValueError, match="holds nothing out"):
        hold_out(["a", "b"], "none", {})


def test_popularity_counts_training_users_once_each():
    users = [UserId(str(n)) for n in range(10)]
    popularity = training_popularity({user: ["a", "a", user] for user in users})

    split = split_users(users)
    assert popularity["a"] == 8
    assert set(popularity) == {"a"} | {user for user in users if split[user] == "train"}


def test_users_are_split_80_10_10_with_the_rest_for_testing():
    split = split_users([UserId(str(n)) for n in range(14_323)])

    counts = {name: list(split.values()).count(name) for name in ("train", "validation", "test")}
    assert counts == {"train": 11_458, "validation": 1_432, "test": 1_433}


def test_the_split_does_not_depend_on_the_order_of_users():
    users = [UserId(str(n)) for n in range(50)]

    assert split_users(users) == split_users(users[::-1])
