import pytest

from services.core.records import Item, ItemId, UserId
from services.core.scoring import yes_probability
from services.state import keys
from services.state.user_store import Store
from tests.api.builders import (
    ScriptedEngine,
    ScriptedRankers,
    a_title,
    an_app,
    ids_of,
    put_user,
    recommend,
)


async def test_the_best_of_the_cheap_order_are_reranked_by_margin(store: Store) -> None:
    engine = ScriptedEngine({"i2": -1.0, "i3": 2.0, "i4": 1.0})
    await put_user(store, "u1", ["i1"], preference="likes i1")
    answer = await recommend(
        an_app(store, engine), candidates=["i2", "i3", "i4", "i5"], num_scored=3
    )
    # i5 is i1's neighbor and so first of the cheap order; i4 is fourth, and not scored.
    assert sorted(engine.asked) == ["i2", "i3", "i5"]
    assert ids_of(answer) == ["i3", "i5", "i2", "i4"]


async def test_without_fusion_the_margin_ranks_and_the_rest_stands_as_sasrec_has_it(
    store: Store,
) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")
    answer = await recommend(an_app(store, ScriptedEngine({"i6": 1.5})), k=6, num_scored=1)
    first, last = answer["items"][0], answer["items"][-1]
    assert (first["item_id"], first["rank"], first["source"]) == ("i6", 1, "sequential")
    assert first["scored_by"] == "mllm"
    assert first["score"] == first["probability"] == yes_probability(1.5)
    assert first["parts"]["margin"] == {"value": 1.5, "contribution": 1.5}
    assert first["parts"]["sequential"] == {"value": -1.0, "contribution": None}
    assert (last["scored_by"], last["probability"], last["score"]) == ("sequential", None, -6.0)


async def test_the_prompt_carries_the_stored_preference(store: Store) -> None:
    engine = ScriptedEngine()
    await put_user(store, "u1", ["i1"], preference="likes foxes")
    await recommend(an_app(store, engine), candidates=["i2"])
    assert "likes foxes" in engine.prompts[0]


async def test_seen_items_are_left_out_unless_asked_for(store: Store) -> None:
    await put_user(store, "u1", ["i1", "i2"], preference="likes i1")
    app = an_app(store)
    assert not {"i1", "i2"} & set(ids_of(await recommend(app)))
    assert {"i1", "i2"} <= set(ids_of(await recommend(app, exclude_seen=False)))


async def test_unknown_and_seen_candidates_are_named_and_the_rest_is_ranked(store: Store) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")
    answer = await recommend(an_app(store), candidates=["i1", "nowhere", "i3", "i3"])
    assert ids_of(answer) == ["i3"]
    assert answer["rejected"] == [
        {"item_id": "i1", "reason": "seen"},
        {"item_id": "nowhere", "reason": "unknown-item"},
    ]


async def test_an_item_deleted_online_is_not_retrieved_any_more(store: Store) -> None:
    await store.items.delete_item(ItemId("i1"))
    await store.items.delete_item(ItemId("i2"))
    answer = await recommend(an_app(store), mode="cheap", k=2)
    assert ids_of(answer) == ["i3", "i4"]


async def test_an_item_put_online_is_ranked_by_its_title_though_its_summary_is_pending(
    store: Store,
) -> None:
    rankers = ScriptedRankers()
    await store.items.put_item(Item(ItemId("fresh"), a_title("fresh")), summary=None)
    answer = await recommend(an_app(store, rankers=rankers), candidates=["fresh", "i2"])
    fresh = next(item for item in answer["items"] if item["item_id"] == "fresh")
    assert (fresh["source"], fresh["probability"]) == ("new", 0.5)
    assert rankers.titles_given == {"fresh": "title of fresh"}


async def test_the_rankers_get_what_the_history_holds_that_they_have_not_seen(
    store: Store,
) -> None:
    await store.items.put_item(Item(ItemId("fresh"), a_title("fresh")), summary=None)
    await put_user(store, "u1", ["fresh"], preference="likes fresh")
    rankers = ScriptedRankers()
    answer = await recommend(an_app(store, rankers=rankers), mode="cheap", k=2)
    assert rankers.titles_given == {"fresh": "title of fresh"}
    assert {each["scored_by"] for each in answer["items"]} == {"titles"}


async def test_an_unknown_user_gets_what_is_trending_and_the_response_says_so(store: Store) -> None:
    engine = ScriptedEngine()
    answer = await recommend(an_app(store, engine, num_scored=1), user_id="stranger", k=3)
    assert ids_of(answer) == ["i1", "i2", "i3"]
    assert (answer["cold"], answer["history_version"], answer["preference_version"]) == (True, 0, 0)
    assert "Nothing is known of this user yet." in engine.prompts[0]


async def test_a_preference_behind_its_history_is_used_and_both_versions_are_reported(
    store: Store,
) -> None:
    await put_user(store, "u1", ["i1", "i2", "i3"], preference="likes foxes")
    await put_user(store, "u1", ["i1", "i2", "i3", "i4"])
    answer = await recommend(an_app(store))
    assert (answer["cold"], answer["preference_version"], answer["history_version"]) == (
        False, 3, 4,
    )  # fmt: skip


async def test_a_history_without_a_preference_is_queued_and_ranked_without_a_preference(
    store: Store,
) -> None:
    await put_user(store, "u1", ["i1"])
    before = await _num_events(store)
    answer = await recommend(an_app(store))
    assert answer["cold"]
    assert await _num_events(store) == before + 1


async def test_the_mllm_mode_scores_every_candidate(store: Store) -> None:
    engine = ScriptedEngine({"i6": 3.0, "i4": 2.0})
    answer = await recommend(
        an_app(store, engine, num_scored=1), candidates=["i2", "i4", "i6"], mode="mllm"
    )
    assert ids_of(answer) == ["i6", "i4", "i2"]
    assert answer["num_scored"] == 3


async def test_the_cheap_mode_asks_no_model(store: Store) -> None:
    engine = ScriptedEngine()
    answer = await recommend(an_app(store, engine), mode="cheap")
    assert engine.asked == []
    assert not answer["degraded"]


@pytest.mark.parametrize("preference", ["likes i1", ""])
async def test_a_score_is_computed_once_for_a_preference(store: Store, preference: str) -> None:
    engine = ScriptedEngine({"i3": 2.0})
    await put_user(store, "u1", ["i1"], preference=preference)
    app = an_app(store, engine)
    first = await recommend(app, candidates=["i2", "i3"])
    engine.asked.clear()
    again = await recommend(app, candidates=["i2", "i3"])
    assert engine.asked == []
    assert again["items"] == first["items"]
    assert (first["num_cached"], again["num_cached"]) == (0, 2)


async def test_a_new_preference_or_another_version_of_the_item_is_scored_again(
    store: Store,
) -> None:
    engine = ScriptedEngine()
    await put_user(store, "u1", ["i1"], preference="likes i1")
    app = an_app(store, engine)
    await recommend(app, candidates=["i2"])
    await store.items.put_item(Item(ItemId("i2"), "another title"), summary="looks i2")
    await recommend(app, candidates=["i2"])
    assert "another title" in engine.prompts[-1]
    await put_user(store, "u1", ["i1", "i4"], preference="likes i4 too")
    await recommend(app, candidates=["i2"])
    assert len(engine.asked) == 3


async def test_a_forgotten_user_is_cold_again(store: Store) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")
    await store.forget_user(UserId("u1"))
    assert (await recommend(an_app(store)))["cold"]


async def _num_events(store: Store) -> int:
    stream = keys.events(keys.partition_of("u1"))
    return int(await store.connection.call("XLEN", stream))
