import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.batch.readers.interactions import (
    InteractionColumns,
    build_histories,
    first_occurrences,
    k_core,
    milliseconds,
    moment,
)
from services.core.errors import RowRefused
from services.core.ids import derive_event_id
from services.core.records import ItemId, UserId

PAIRS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), unique=True, max_size=60)
THRESHOLDS = st.integers(0, 4)


def as_columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def core_of(pairs: list[tuple[int, int]], min_user: int, min_item: int) -> set[tuple[int, int]]:
    mask = k_core(*as_columns(pairs), min_user=min_user, min_item=min_item)
    return {pair for pair, kept in zip(pairs, mask, strict=True) if kept}


def pruned_one_by_one(
    pairs: list[tuple[int, int]], min_user: int, min_item: int
) -> set[tuple[int, int]]:
    """The definition, slowly: while somebody has too few, remove one such interaction."""
    left = list(pairs)
    while True:
        for user, item in left:
            if sum(u == user for u, _ in left) < min_user:
                break
            if sum(i == item for _, i in left) < min_item:
                break
        else:
            return set(left)
        left.remove((user, item))


@given(PAIRS, THRESHOLDS, THRESHOLDS)
def test_the_k_core_is_what_pruning_one_by_one_leaves(pairs, min_user: int, min_item: int):
    assert core_of(pairs, min_user, min_item) == pruned_one_by_one(pairs, min_user, min_item)


@given(PAIRS, THRESHOLDS, THRESHOLDS, st.randoms())
def test_the_k_core_does_not_depend_on_the_order_of_rows(pairs, min_user, min_item, rng):
    shuffled = list(pairs)
    rng.shuffle(shuffled)

    assert core_of(shuffled, min_user, min_item) == core_of(pairs, min_user, min_item)


@given(PAIRS)
def test_thresholds_of_0_and_1_leave_everything(pairs):
    assert core_of(pairs, 0, 1) == set(pairs)


def test_removing_an_item_can_remove_users_and_then_other_items():
    pairs = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3)]  # a chain falls apart link by link

    assert core_of(pairs, 2, 2) == set()


def test_of_repeats_the_earliest_stays_wherever_it_stands_in_the_file():
    users, items = np.array([0, 0, 0, 1]), np.array([5, 5, 6, 5])

    kept = first_occurrences(users, items, np.array([9, 3, 4, 9]))

    assert kept.tolist() == [False, True, True, True]


def test_a_history_is_ordered_by_time_and_then_as_the_online_state_orders_equals():
    columns = InteractionColumns("file")
    facts = [("u", item, time) for item, time in zip("abcdefg", [7, 5, 5, 5, 5, 1, 5], strict=True)]
    for line, (user_id, item_id, time) in enumerate(facts, start=1):
        columns.append(user_id, item_id, time, line)

    histories = build_histories(columns, columns.users, columns.items, columns.timestamps_ms)

    expected = sorted(
        facts, key=lambda f: (f[2], derive_event_id(UserId(f[0]), ItemId(f[1]), f[2]))
    )
    assert [columns.item_ids[k] for k in histories.items] == [item for _, item, _ in expected]
    assert histories.timestamps_ms.tolist() == [1, 5, 5, 5, 5, 5, 7]


def test_users_keep_the_order_of_their_first_appearance():
    columns = InteractionColumns("file")
    for line, user_id in enumerate(["z", "a", "z", "m"], start=1):
        columns.append(user_id, f"item {line}", line, line)

    histories = build_histories(columns, columns.users, columns.items, columns.timestamps_ms)

    assert histories.user_ids == ["z", "a", "m"]
    assert histories.offsets.tolist() == [0, 2, 3, 4]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2020-01-01", 1_577_836_800_000),
        ("2020-01-01T00:00:00Z", 1_577_836_800_000),
        ("2020-01-01 01:00:00+01:00", 1_577_836_800_000),
        (1_577_836_800, 1_577_836_800_000),
        ("1577836800", 1_577_836_800_000),
        (1_577_836_800.5, 1_577_836_800_500),
        (1_577_836_800_123, 1_577_836_800_123),
    ],
)
def test_a_timestamp_without_unit_is_read_as_people_write_it(value: object, expected: int):
    assert moment(value) == expected


@pytest.mark.parametrize(
    "value", [None, "", "yesterday", "nan", float("inf"), True, [1], "2020-13-01"]
)
def test_what_is_no_time_is_refused(value: object):
    with pytest.raises(RowRefused, match="timestamp"):
        moment(value)
    with pytest.raises(RowRefused, match="timestamp"):
        milliseconds(value)


@pytest.mark.parametrize("timestamp_ms", [-1, 4_102_444_800_000, 10**400])
def test_an_absurd_time_is_refused(timestamp_ms: int):
    with pytest.raises(RowRefused, match="outside 1970 to 2099"):
        InteractionColumns("file").append("u", "i", timestamp_ms, 1)


@pytest.mark.parametrize("bad_id", ["", "  ", "x" * 257, "\ud800", "a\x00b"])
def test_an_id_that_cannot_be_a_key_is_refused(bad_id: str):
    with pytest.raises(RowRefused, match="user id"):
        InteractionColumns("file").append(bad_id, "i", 1, 1)
    with pytest.raises(RowRefused, match="item id"):
        InteractionColumns("file").append("u", bad_id, 1, 1)
