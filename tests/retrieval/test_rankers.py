"""The cheap rankers as the API uses them."""

import numpy as np
import pytest

from services.core.errors import ArtifactMissing
from services.retrieval.neighbors import Neighbors
from services.retrieval.rankers import CheapRankers, CheapScores


@pytest.fixture
def rankers() -> CheapRankers:
    """a..f taken by 9, 8, 3, 7, 3, 0 users; a is like b (.1) and c (.6), b is like c (.3)."""
    neighbors = Neighbors(
        starts=np.array([0, 2, 3, 3, 3, 3, 3]),
        indices=np.array([2, 1, 2], np.int32),
        weights=np.array([0.6, 0.1, 0.3], np.float32),
    )
    return CheapRankers(list("abcdef"), np.array([9, 8, 3, 7, 3, 0]), neighbors, "print")


def ids(found: list[CheapScores]) -> str:
    return "".join(scores.item_id for scores in found)


def test_neighbors_come_first_and_popular_items_fill_up(rankers):
    found = rankers.retrieve(["a"], limit=4, exclude=["a"])

    assert ids(found) == "cbde"
    assert [scores.source for scores in found] == ["neighbors"] * 2 + ["popularity"] * 2
    assert found[0] == CheapScores("c", "neighbors", pytest.approx(0.6), 3.0)


def test_a_user_without_history_gets_the_popular(rankers):
    assert ids(rankers.retrieve([], limit=3, exclude=[])) == "abd"


def test_a_history_of_unknown_items_is_no_history(rankers):
    assert ids(rankers.retrieve(["new"], limit=3, exclude=["new"])) == "abd"


def test_excluded_items_are_never_proposed(rankers):
    assert ids(rankers.retrieve(["a"], limit=6, exclude=["a", "c", "d"])) == "bef"


def test_a_limit_cuts_the_neighbors(rankers):
    assert ids(rankers.retrieve(["a"], limit=1, exclude=[])) == "c"


@pytest.mark.parametrize("limit", [0, -1])
def test_no_item_is_asked_for(rankers, limit):
    assert rankers.retrieve(["a"], limit=limit, exclude=[]) == []


def test_everything_excluded_leaves_nothing(rankers):
    assert rankers.retrieve(["a"], limit=3, exclude=list("abcdef")) == []


def test_retrieved_items_stand_in_the_order_of_their_key(rankers):
    found = rankers.retrieve(["a", "b"], limit=6, exclude=[])

    assert sorted(found, key=lambda scores: scores.order_key) == found


def test_candidates_keep_the_callers_order_and_unknown_ones_are_new(rankers):
    found = rankers.score(["a"], ["d", "online", "c"])

    assert found == [
        CheapScores("d", "caller", 0.0, 7.0),
        CheapScores("online", "new", 0.0, 0.0),
        CheapScores("c", "caller", pytest.approx(0.6), 3.0),
    ]


def test_an_artifact_that_was_not_fitted_is_named(tmp_path):
    with pytest.raises(ArtifactMissing, match="msr fit-retrieval"):
        CheapRankers.load(str(tmp_path))
