from dataclasses import replace

from services.api.recommend.ordering import merge_by_score
from tests.api.builders import IDENTITY, a_ranker, an_ordering


def test_without_scores_the_cheap_order_stands() -> None:
    assert merge_by_score(["a", "b", "c"], {}) == ["a", "b", "c"]


def test_with_all_scores_they_alone_decide() -> None:
    assert merge_by_score(["a", "b", "c"], {"a": -1.0, "b": 2.0, "c": 0.5}) == ["b", "c", "a"]


def test_an_item_without_a_score_keeps_its_cheap_place() -> None:
    merged = merge_by_score(["a", "late", "b", "c"], {"a": -1.0, "b": 2.0, "c": 0.5})
    assert merged == ["b", "late", "c", "a"]


def test_the_unscored_rest_stays_behind_the_scored_head() -> None:
    assert merge_by_score(["a", "b", "c", "d"], {"a": -9.0, "b": -8.0}) == ["b", "a", "c", "d"]


def test_equal_scores_keep_their_cheap_order() -> None:
    assert merge_by_score(["a", "b", "c"], {"a": 1.0, "b": 1.0, "c": 1.0}) == ["a", "b", "c"]


def test_margins_are_weighed_by_the_weights_of_their_adapter_or_not_at_all() -> None:
    spring, own = replace(IDENTITY, adapter="spring"), a_ranker(adapter="spring", fingerprint="s")
    ordering = replace(an_ordering(ranker=a_ranker()), for_adapters={"spring": own})
    assert ordering.by(IDENTITY).ranker == a_ranker()
    assert ordering.by(spring).ranker == own
    other = ordering.by(replace(IDENTITY, adapter="summer")).ranker
    assert other == a_ranker(margin_weight=None, model="", adapter="")


def test_weights_beside_that_weigh_another_models_margins_are_not_used() -> None:
    own = a_ranker(model="another", adapter="spring")
    ordering = replace(an_ordering(ranker=a_ranker()), for_adapters={"spring": own})
    found = ordering.by(replace(IDENTITY, adapter="spring"))
    assert (found.cheap_order, found.final_order) == ("fusion", "mllm")
