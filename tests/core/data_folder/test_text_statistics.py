"""What counts as one text, and when texts do not vary."""

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pytest

from services.core.data_folder.text_statistics import (
    TEXT_COLUMNS,
    Kind,
    TextCounter,
    TextStatistics,
    as_counted,
)

GRAY_TREE = "A gray tree in flat style."


def counted(texts: Iterable[str], kind: Kind = "summaries", num_empty: int = 0) -> TextStatistics:
    """Statistics of texts that were each written from another input."""
    counter = TextCounter(kind)
    for number, text in enumerate(texts):
        counter.add(text, f"input {number}")
    return counter.statistics(num_empty)


def test_the_newcomers_photographs_get_one_sentence_that_says_what_is_wrong_and_what_to_do():
    others = [f"sentence {number % 49}" for number in range(393)]

    found = counted([*others, *[GRAY_TREE] * 240])

    assert (found.num_texts, found.num_distinct) == (633, 50)
    assert found.warning() == (
        '240 of 633 summaries are the same text ("A gray tree in flat style."): this model does '
        "not know these images; summarize them with a published model (docs/gpu.md), or serve "
        "without texts by mode: cheap"
    )


@pytest.mark.parametrize(
    ("num_same", "num_all", "warned"),
    [(49, 49, False), (50, 50, True), (10, 50, False), (11, 50, True), (20, 100, False)],
)
def test_from_fifty_texts_on_more_than_a_fifth_is_warned(num_same: int, num_all: int, warned: bool):
    found = counted([*["same"] * num_same, *map(str, range(num_all - num_same))])

    assert bool(found.warning()) == warned


@pytest.mark.parametrize(
    "variant",
    ["a GRAY tree in flat style", " A gray  tree\nin flat style. ", '"A gray tree in flat style!"'],
)
def test_case_white_space_and_outer_punctuation_do_not_make_another_text(variant: str):
    assert as_counted(variant) == as_counted(GRAY_TREE)


@pytest.mark.parametrize(("one", "other"), [("naïve", "naive"), ("x-ray", "xray"), ("!", "?")])
def test_other_differences_do(one: str, other: str):
    assert as_counted(one) != as_counted(other)


def test_a_warning_about_preferences_does_not_quote_one():
    warning = counted(["Likes trees."] * 60, "preferences").warning()

    assert "trees" not in warning
    assert warning.startswith("60 of 60 preferences are the same text: this model does not tell")


def test_one_input_counts_once_however_often_it_occurs():
    counter = TextCounter("summaries")
    for _ in range(400):
        counter.add("a blank poster", "the same title and image")

    assert counter.statistics().num_texts == 1


def test_preferences_count_once_for_each_history_by_what_their_last_digest_covers():
    columns = TEXT_COLUMNS["build-preferences"]
    digests = [["a"], ["a"], ["a", "b"], ["a", "c"]]
    rows = pa.table({"preference": ["x", "x", "y", "y"], "block_digests": digests})

    found = columns.count([rows], num_empty=0)

    assert (found.num_texts, found.num_distinct, found.num_most_frequent) == (3, 2, 2)


def test_the_last_flag_of_a_list_is_the_current_texts_and_unknown_ones_do_not_count():
    columns = TEXT_COLUMNS["build-preferences"]
    rows = pa.table(
        {
            "preference": ["x", "y", "z"],
            "block_digests": [["a", "b"], ["c"], ["d"]],
            "hit_limits": [[False, True], [None], [False]],
        }
    )

    assert columns.count([rows], num_empty=0).num_cut == 1


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (TextStatistics("summaries", num_texts=100, num_empty=30), "30 of 130 summaries are missi"),
        (TextStatistics("preferences", num_texts=60, num_cut=31), "31 of 60 preferences end at"),
    ],
)
def test_many_empty_and_many_cut_texts_are_notes_that_say_what_to_do(
    found: TextStatistics, text: str
):
    (note,) = found.notes()

    assert note.startswith(text)
    assert "; " in note


def test_no_texts_at_all_are_neither_a_fault_nor_a_failure():
    found = counted([])

    assert (found.warning(), found.notes(), found.most_frequent_share) == ("", [], 0.0)


def test_json_gives_the_same_statistics_back_and_a_long_text_is_shortened():
    found = counted(["word " * 1000] * 60, num_empty=2)

    assert TextStatistics.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert len(found.most_frequent) == 200
    assert len(found.warning()) < 400


@pytest.mark.parametrize("fault", [{}, {"kind": "poems"}, {"num_texts": "many"}, {"num_cut": None}])
def test_json_of_another_form_is_refused(fault: dict[str, Any]):
    found = counted(["a"]).to_json() | fault if fault else {}

    with pytest.raises(ValueError, match="statistics"):
        TextStatistics.from_json(found)


def test_a_semicolon_in_the_text_does_not_hide_what_to_do():
    warning = counted(["red; green"] * 60).warning()

    assert warning.rpartition("; ")[2].startswith("summarize them with")
