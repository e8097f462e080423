"""A ranking that is to know what the user just did waits for it, or says that it does not know."""

import asyncio

from services.core.records import ItemId, UserId
from services.core.recurrence import PreferenceState
from services.state.records import UpdatedPreference
from services.state.user_store import Store
from tests.api.builders import an_app, put_user, recommend, send
from tests.builders import an_interaction


async def act(store: Store, item_id: str = "i2") -> int:
    """The version after one more interaction."""
    [result] = await store.ingest([an_interaction(item_id, at=10_000)])
    return result.version


async def update(store: Store, after_seconds: float) -> None:
    await asyncio.sleep(after_seconds)
    record = await store.load_user(UserId("u1"))
    assert record is not None
    state = PreferenceState(record.state.blocks, (ItemId("i1"), ItemId("i2")))
    await store.save_preference(
        UpdatedPreference(record, state, "likes i2", record.version, "tests")
    )


async def test_a_ranking_waits_for_the_version_that_it_is_to_know(store: Store) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")
    version = await act(store)
    updating = asyncio.create_task(update(store, 0.1))
    answer = await recommend(an_app(store), mode="cheap", at_least_version=version)
    await updating
    assert (answer["preference_version"], answer["preference_behind"]) == (version, False)


async def test_an_update_that_takes_over_half_of_the_time_is_not_waited_for_and_said_to_be_behind(
    store: Store,
) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")
    version = await act(store)
    app = an_app(store)
    answer = await recommend(app, at_least_version=version, timeout_seconds=1)
    assert (answer["preference_version"], answer["preference_behind"]) == (version - 1, True)
    assert not answer["degraded"]  # the other half was the model's
    metrics = (await send(app, "GET", "/metrics")).text
    assert 'msr_version_waits_total{outcome="behind"} 1.0' in metrics


async def test_a_version_that_the_history_never_had_is_not_waited_for(store: Store) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")
    started = asyncio.get_running_loop().time()
    answer = await recommend(an_app(store), mode="cheap", at_least_version=99, timeout_seconds=50)
    assert answer["preference_behind"]
    assert asyncio.get_running_loop().time() - started < 20
