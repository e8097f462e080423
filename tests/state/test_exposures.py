"""What was recommended in an experiment is found once, by its last arm, and not for ever."""

import pytest

from services.core.records import Interaction, ItemId, UserId
from services.state import keys
from services.state.exposures import ExposureLog
from services.state.user_export import export_user
from services.state.user_store import Store

USER = UserId("u1")


def items(*names: str) -> list[ItemId]:
    return [ItemId(name) for name in names]


@pytest.fixture
async def exposures(store: Store) -> ExposureLog:
    await store.append_history([Interaction(USER, ItemId("i0"), 1, "e1")])
    return ExposureLog(store.connection)


async def test_an_item_that_was_recommended_counts_once_and_for_its_last_arm(
    exposures: ExposureLog,
) -> None:
    await exposures.note(USER, "spring", "control", items("i1", "i2"))
    await exposures.note(USER, "summer", "treated", items("i2"))
    assert await exposures.take({USER: items("i1", "i2", "i3")}) == [
        ("spring", "control"),
        ("summer", "treated"),
    ]
    assert await exposures.take({USER: items("i1", "i2")}) == []


async def test_an_export_shows_it(store: Store, exposures: ExposureLog) -> None:
    await exposures.note(USER, "spring", "control", items("i2", "i1"))
    assert (await export_user(store, USER))["recommended_in_experiment"] == ["i1", "i2"]


async def test_another_user_has_a_record_of_his_own(exposures: ExposureLog) -> None:
    await exposures.note(USER, "spring", "control", items("i1"))
    assert await exposures.take({UserId("u2"): items("i1")}) == []


async def test_the_record_is_capped_and_ends(store: Store, exposures: ExposureLog) -> None:
    await exposures.note(USER, "spring", "control", items(*map(str, range(keys.SHOWN_CAP))))
    await exposures.note(USER, "spring", "control", items("one more"))
    assert await store.connection.call("HLEN", keys.shown(USER)) == 1
    assert 0 < await store.connection.call("TTL", keys.shown(USER)) <= keys.SHOWN_TTL_SECONDS


async def test_forgetting_a_user_forgets_it(store: Store, exposures: ExposureLog) -> None:
    await exposures.note(USER, "spring", "control", items("i1"))
    await store.forget_user(USER)
    await exposures.note(USER, "spring", "control", items("i1"))  # of an answer under way
    assert await store.connection.call("KEYS", "*") == []
