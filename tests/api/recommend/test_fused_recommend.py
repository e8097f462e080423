"""What the weights of fusion change in an answer: orders, scores and contributions."""

import math

import pytest

from services.core.errors import ArtifactMismatch
from services.core.scoring import Calibration, yes_probability
from services.engines.contract import EngineIdentity
from services.state.user_store import Store
from tests.api.builders import (
    IDENTITY,
    ScriptedEngine,
    ScriptedRankers,
    a_ranker,
    an_app,
    an_ordering,
    ids_of,
    put_user,
    recommend,
    send,
)


async def test_the_margin_and_the_cheap_features_order_together(store: Store) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")
    engine = ScriptedEngine({"i5": 0.5, "i4": 2.5})
    fused = an_app(store, engine, ranker=a_ranker())
    candidates = ["i4", "i5", "i6"]  # sequential says -6, -2, -1
    assert ids_of(await recommend(fused, candidates=candidates)) == ["i6", "i5", "i4"]
    assert ids_of(await recommend(fused, candidates=candidates, mode="mllm")) == ["i4", "i5", "i6"]


async def test_contributions_add_up_to_the_log_odds_of_the_score(store: Store) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")
    app = an_app(store, ScriptedEngine({"i6": 2.0}), ranker=a_ranker())
    answer = await recommend(app, k=6, num_scored=1)
    for place in answer["items"]:
        logit = sum(each["contribution"] for each in place["parts"].values())
        assert math.isclose(place["score"], yes_probability(logit)), place["item_id"]
    assert answer["items"][0]["parts"]["margin"] == {"value": 2.0, "contribution": 2.0}
    assert [each["scored_by"] for each in answer["items"][:2]] == ["mllm-fusion", "fusion"]


async def test_the_mode_mllm_is_explained_by_the_margin_alone(store: Store) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")
    app = an_app(store, ScriptedEngine({"i6": 2.0}), ranker=a_ranker())
    [place] = (await recommend(app, candidates=["i6"], mode="mllm"))["items"]
    assert (place["scored_by"], place["score"]) == ("mllm", yes_probability(2.0))
    counted = {name for name, each in place["parts"].items() if each["contribution"] is not None}
    assert counted == {"margin", "intercept"}


async def test_the_mode_cheap_is_ordered_by_fusion_without_the_margin(store: Store) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")
    answer = await recommend(an_app(store, ranker=a_ranker()), mode="cheap", k=2)
    assert ids_of(answer) == ["i6", "i5"]
    assert answer["items"][0]["score"] == yes_probability(-1.0 + 0.5)
    assert "margin" not in answer["items"][0]["parts"]


async def test_weights_without_a_margin_leave_the_scored_ones_to_the_model(store: Store) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")
    ranker = a_ranker(margin_weight=None, model="", adapter="")
    app = an_app(store, ScriptedEngine({"i4": 0.1}), ranker=ranker)
    answer = await recommend(app, candidates=["i4", "i6"])
    assert ids_of(answer) == ["i4", "i6"]
    assert (await send(app, "GET", "/version")).json()["final_order"] == "mllm"


async def test_a_user_without_history_is_ranked_as_if_there_were_no_fusion(store: Store) -> None:
    app = an_app(store, ScriptedEngine({"i3": 3.0}), ranker=a_ranker(), num_scored=3)
    answer = await recommend(app, user_id="stranger", k=4)
    assert ids_of(answer) == ["i3", "i1", "i2", "i4"]
    assert [each["scored_by"] for each in answer["items"]] == ["mllm", "mllm", "mllm", "trending"]


async def test_what_the_model_did_not_score_in_time_keeps_its_place(store: Store) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")
    engine = ScriptedEngine({"i4": 9.0}, stalled=["i5"])
    app = an_app(store, engine, ranker=a_ranker())
    answer = await recommend(app, candidates=["i4", "i5", "i6"], timeout_seconds=0.5)
    assert ids_of(answer) == ["i4", "i5", "i6"]
    assert [each["scored_by"] for each in answer["items"]] == [
        "mllm-fusion", "fusion", "mllm-fusion",
    ]  # fmt: skip


async def test_the_probability_is_the_calibrated_one_and_the_order_stays(store: Store) -> None:
    identity = EngineIdentity("scripted", "scripted-adapter", Calibration(0.5, -1.0))
    engine = ScriptedEngine({"i2": 4.0}, identity=identity)
    answer = await recommend(an_app(store, engine), candidates=["i3", "i2"])
    assert ids_of(answer) == ["i2", "i3"]
    first = answer["items"][0]
    assert first["probability"] == first["score"] == yes_probability(0.5 * 4.0 - 1.0)


def test_weights_for_otherwise_fitted_rankers_are_refused_with_the_remedy() -> None:
    rankers = ScriptedRankers(definition="another")
    with pytest.raises(ArtifactMismatch, match="msr fit-ranker"):
        an_ordering(rankers, a_ranker())


def test_weights_for_another_adapter_are_refused_with_the_remedy() -> None:
    with pytest.raises(ArtifactMismatch, match="--no-model"):
        an_ordering(None, a_ranker(adapter="another"), IDENTITY)


def test_weights_that_need_no_margin_fit_every_adapter() -> None:
    ordering = an_ordering(None, a_ranker(margin_weight=None, model="", adapter=""), IDENTITY)
    assert (ordering.cheap_order, ordering.final_order) == ("fusion", "mllm")


async def test_the_version_says_by_what_is_ranked(store: Store) -> None:
    plain = (await send(an_app(store), "GET", "/version")).json()
    fused = (await send(an_app(store, ranker=a_ranker()), "GET", "/version")).json()
    assert (plain["ranker"], plain["cheap_order"], plain["final_order"]) == (
        "",
        "sequential",
        "mllm",
    )
    assert (fused["ranker"], fused["cheap_order"]) == ("ranker-of-tests", "fusion")
    assert fused["final_order"] == "mllm-fusion"
