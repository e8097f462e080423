"""The cut and the split of users."""

import pytest

from services.core.errors import HistoryTooShort
from services.core.records import UserId
from services.core.splits import cut_history, leave_last_out, split_users


def test_the_target_is_the_last_item_and_the_history_everything_before():
    assert leave_last_out(["a", "b", "c"]) == (["a", "b"], "c")


@pytest.mark.parametrize("history", [[], ["a"]])
def test_a_history_without_a_target_is_refused(history):
    with pytest.raises(HistoryTooShort, match=f"{len(history)} interaction"):
        leave_last_out(history)


def test_a_cut_of_none_sees_everything():
    assert cut_history(["a"], "none") == ["a"]


def test_users_are_split_80_10_10_with_the_rest_for_testing():
    split = split_users([UserId(str(n)) for n in range(14_323)])

    counts = {name: list(split.values()).count(name) for name in ("train", "validation", "test")}
    assert counts == {"train": 11_458, "validation": 1_432, "test": 1_433}


def test_the_split_does_not_depend_on_the_order_of_users():
    users = [UserId(str(n)) for n in range(50)]

    assert split_users(users) == split_users(users[::-1])
