"""Groups of users: who is where, by what rankers may know."""

import pytest

from model_training.data.inputs import open_inputs
from model_training.data.protocols import find_protocol
from model_training.evaluation.slices import slice_users
from services.core.splits import split_users
from tests.artifact_builders import write_interactions, write_items
from tests.model_training.builders import frozen_tasks

USERS = [f"u{number}" for number in range(60)]
HELD_OUT = [user for user, part in split_users(USERS).items() if part != "train"]
TEST = sorted(user for user, part in split_users(USERS).items() if part == "test")


@pytest.fixture
def slices(tmp_path):
    """Training users take i0 to i9 in order; the six test users end with an item that is new to
    them: 3 with i9, which all training users took last, 3 with i20 that nobody else took.
    """
    histories = {user: [f"i{number}" for number in range(10)] for user in USERS}
    for user in HELD_OUT:
        histories[user] = [f"i{number}" for number in range(4)] + ["i9"]
    for user in TEST[:3]:
        histories[user] = [f"i{number}" for number in range(7)] + ["i20"]
    write_items(str(tmp_path), {f"i{number}": "thing" for number in range(40)})
    write_interactions(str(tmp_path), histories)
    tasks = frozen_tasks(str(tmp_path), "chrono-uniform").tasks
    found = slice_users(open_inputs(str(tmp_path)), find_protocol("chrono-uniform"), tasks)
    return {
        name: {group: [tasks[row].user_id for row in mask.nonzero()[0]] for group, mask in groups}
        for name, groups in found.items()
    }


def test_users_are_grouped_by_the_length_of_the_history_before_the_target(slices):
    assert slices["history length"] == {"1-5": TEST[3:], "6-10": TEST[:3]}


def test_popularity_counts_visible_takers_alone(slices):
    # Of i9: 48 training users; of i20 nobody, since the targets themselves are hidden.
    assert slices["target popularity"] == {"0-4": TEST[:3], "20-99": TEST[3:]}


def test_the_age_of_a_target_that_nobody_is_seen_to_take_is_not_known(slices):
    assert slices["item age"] == {"newest third": TEST[3:], "never seen": TEST[:3]}


def test_cold_targets_are_those_with_few_takers(slices):
    assert slices["cold targets"] == {"cold (under 5 takers)": TEST[:3], "known": TEST[3:]}


def test_every_user_is_in_one_group_of_each_slice(slices):
    for groups in slices.values():
        assert sorted(user for users in groups.values() for user in users) == TEST
