"""The cheap rankers as the API and the evaluation use them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from services.core.errors import ArtifactMissing
from services.retrieval.cheap_rankers import CheapRankers, CheapScores
from services.retrieval.features import FEATURES
from tests.retrieval.builders import ITEM_IDS, some_rankers


@pytest.fixture
def rankers() -> CheapRankers:
    return some_rankers()


def ids(found: list[CheapScores]) -> str:
    return "".join(scores.item_id for scores in found)


def named(rankers: CheapRankers, history: str, candidate: str, **titles: str) -> dict[str, float]:
    [values] = rankers.features(list(history), [candidate], titles).tolist()
    return dict(zip(FEATURES, values, strict=True))


def by(name: str):
    return lambda values: values[:, FEATURES.index(name)]


def test_features_are_what_their_definitions_say(rankers):
    found = named(rankers, "ab", "c")

    assert found["popularity"] == pytest.approx(np.log(4))
    assert found["trending"] == pytest.approx(np.log(1.5))
    assert found["neighbors"] == pytest.approx(np.log(1 + 0.9 * 0.6 + 0.3))
    assert found["titles"] == pytest.approx(0.5)  # (red cat) . (red + blue), both of length 1
    assert found["recency"] == pytest.approx(0.5 - 0.25)


def test_the_sequential_feature_is_a_log_probability_over_the_catalogue(rankers):
    found = by("sequential")(rankers.features_of_all(["a", "b"]))

    assert np.exp(found).sum() == pytest.approx(1, abs=1e-5)
    assert found.std() > 0


def test_without_a_history_an_items_share_of_all_interactions_is_its_probability(rankers):
    assert named(rankers, "", "a")["sequential"] == pytest.approx(np.log(10 / 36))
    assert named(rankers, "", "new", new="red")["sequential"] == pytest.approx(np.log(1 / 36))


def test_features_of_candidates_are_the_rows_of_those_of_all(rankers):
    history, candidates = ["a", "x", "d"], ["f", "a", "c"]
    rows = [rankers.index_of(item_id) for item_id in candidates]

    found = rankers.features(history, candidates)

    assert found.tolist() == rankers.features_of_all(history)[rows].tolist()


@pytest.mark.parametrize("history", [[], ["a"], ["f"], ["new"], ["a", "new", "f", "e"]])
def test_every_feature_is_finite_whatever_the_history(rankers, history):
    found = rankers.features(history, [*ITEM_IDS, "new", "other"], {"new": "blue cat"})

    assert found.shape == (8, len(FEATURES))
    assert np.isfinite(found).all()


def test_an_item_that_came_online_is_known_by_its_title_alone(rankers):
    titled, unknown = named(rankers, "a", "x", x="red"), named(rankers, "a", "x")

    assert (titled["titles"], unknown["titles"]) == (1.0, 0.0)
    assert unknown["sequential"] == pytest.approx(np.log(1 / 6))
    assert titled["popularity"] == titled["neighbors"] == titled["recency"] == 0


def test_an_item_that_came_online_stands_where_its_content_neighbors_stand(rankers):
    # Of the titles with "blue" only b was taken.
    assert named(rankers, "a", "x", x="blue")["sequential"] == pytest.approx(
        named(rankers, "a", "b")["sequential"], abs=1e-5
    )


def test_the_title_of_an_item_that_came_online_counts_in_a_history_too(rankers):
    assert named(rankers, "x", "a", x="red")["titles"] == pytest.approx(1)


def test_candidates_keep_the_callers_order_and_unknown_ones_are_new(rankers):
    found = rankers.score(["a"], ["d", "online", "c"])

    assert ids(found) == "donlinec"
    assert [scores.source for scores in found] == ["caller", "new", "caller"]
    assert [scores.taken_by for scores in found] == [7, 0, 3]
    assert found[2].values == tuple(rankers.features(["a"], ["c"])[0].tolist())


def test_retrieved_items_stand_in_the_given_order(rankers):
    found = rankers.retrieve(["a"], limit=3, exclude=["a"], order=by("neighbors"))

    assert ids(found) == "cbd"  # d and e are pointed at alike; d trends


def test_without_an_order_the_likeliest_next_items_come_first(rankers):
    found = rankers.retrieve(["a"], limit=6, exclude=[])
    values = [by("sequential")(np.array([scores.values]))[0] for scores in found]

    assert len(found) == 6
    assert values == sorted(values, reverse=True)


def test_a_proposal_names_the_ranker_that_placed_it_highest(rankers):
    found = rankers.retrieve(["a"], limit=6, exclude=["a"], order=by("neighbors"))

    source = {scores.item_id: scores.source for scores in found}
    likeliest = rankers.retrieve(["a"], limit=1, exclude=[])[0].item_id
    assert source["d"] in ("trending", "sequential")
    assert source["c"] == ("sequential" if likeliest == "c" else "neighbors")


@pytest.mark.parametrize("history", [[], ["new"]])
def test_a_user_without_a_known_history_gets_what_is_trending(rankers, history):
    found = rankers.retrieve(history, limit=3, exclude=history, order=lambda values: -values[:, 0])

    assert ids(found) == "dab"
    assert {scores.source for scores in found} == {"trending"}


def test_excluded_items_are_never_proposed_and_do_not_shorten_the_list(rankers):
    assert sorted(ids(rankers.retrieve(["a"], limit=3, exclude=list("acd")))) == list("bef")


@pytest.mark.parametrize(("limit", "exclude"), [(0, ""), (-1, ""), (3, "abcdef")])
def test_nothing_is_proposed_where_nothing_can_be(rankers, limit, exclude):
    assert rankers.retrieve(["a"], limit=limit, exclude=list(exclude)) == []


def test_threads_get_what_one_gets(rankers):
    histories = [list("abcdef")[:length] for length in range(6)] * 20

    def retrieve(history: list[str]) -> list[CheapScores]:
        return rankers.retrieve(history, limit=4, exclude=history)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(retrieve, histories)) == [retrieve(each) for each in histories]


def test_an_artifact_that_was_not_fitted_is_named(tmp_path):
    with pytest.raises(ArtifactMissing, match="msr fit-retrieval"):
        CheapRankers.load(str(tmp_path))


def test_who_took_only_new_items_gets_titles_like_theirs(rankers):
    titles = {"new": "blue cat"}
    found = rankers.retrieve(["new"], limit=3, exclude=["new"], titles=titles)

    assert rankers.basis(["new"], titles) == "titles"
    assert ids(found) == "dbc"  # d cat and b blue alike, d trends; c is half about red


@pytest.mark.parametrize(
    ("history", "basis"), [([], "trending"), (["new"], "trending"), (["new", "a"], "sequential")]
)
def test_an_order_rests_on_what_is_known_of_the_history(rankers, history, basis):
    assert rankers.basis(history) == basis


def test_threads_that_are_new_to_torch_keep_the_processs_number_of_threads(rankers):
    before = torch.get_num_threads()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: rankers.retrieve(["a"], limit=4, exclude=[]), range(200)))

    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == before
