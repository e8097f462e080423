"""The choice of adapters: read as it was written, and changed by one at a time."""

import asyncio
from dataclasses import replace

import pytest

from services.core.errors import StateConflict, StateError
from services.state import keys
from services.state.adapter_selection import (
    AdapterRef,
    AdapterSelection,
    AdapterSelections,
    Arm,
    Experiment,
    Shadow,
)
from services.state.user_store import Store

SPRING, SUMMER = AdapterRef("spring", "a" * 16), AdapterRef("summer", "b" * 16)
FIRST = AdapterSelection(SPRING)
FULL = AdapterSelection(
    SPRING,
    previous=SUMMER,
    shadow=Shadow(SUMMER, 0.25),
    experiment=Experiment("x", (Arm("control", SPRING, 9.0), Arm("treated", SUMMER, 1.0))),
)


@pytest.fixture
def choices(store: Store) -> AdapterSelections:
    return AdapterSelections(store.connection)


@pytest.mark.parametrize("choice", [FIRST, FULL])
async def test_a_choice_is_read_as_it_was_written(
    choices: AdapterSelections, choice: AdapterSelection
) -> None:
    assert await choices.load("m1") is None
    await choices.save("m1", None, choice)
    assert await choices.load("m1") == choice
    await choices.save("m1", choice, replace(choice, active=SUMMER))
    assert (await choices.load("m1") or choice).active == SUMMER


async def test_each_base_model_has_a_choice_of_its_own(choices: AdapterSelections) -> None:
    await choices.save("m1", None, FULL)
    assert await choices.load("m2") is None
    await choices.save("m2", None, FIRST)
    assert await choices.load("m1") == FULL


async def test_of_many_who_change_it_at_once_one_does(choices: AdapterSelections) -> None:
    outcomes = await asyncio.gather(
        *(choices.save("m1", None, replace(FIRST, previous=SUMMER)) for _ in range(20)),
        return_exceptions=True,
    )
    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, StateConflict) for outcome in outcomes) == 19


async def test_who_read_an_older_choice_changes_nothing(choices: AdapterSelections) -> None:
    await choices.save("m1", None, FIRST)
    await choices.save("m1", FIRST, FULL)
    with pytest.raises(StateConflict):
        await choices.save("m1", FIRST, replace(FIRST, active=SUMMER))
    assert await choices.load("m1") == FULL


@pytest.mark.parametrize("value", [b"", b"[]", b'{"active": {"name": "x"}}'])
async def test_what_other_code_wrote_is_refused_with_the_remedy(
    store: Store, choices: AdapterSelections, value: bytes
) -> None:
    await store.connection.call("HSET", keys.ADAPTERS, "m1", value)
    with pytest.raises(StateError, match="HDEL msr:adapters m1"):
        await choices.load("m1")
