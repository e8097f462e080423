"""The consistency check of the fault tests finds what went wrong."""

from dataclasses import replace
from pathlib import Path
from random import Random

import psutil
import pytest

from benchmarks.faults.consistency_check import Inconsistencies, check_consistency
from benchmarks.faults.deliveries import draw_deliveries
from benchmarks.faults.digest_engine import DigestEngine
from benchmarks.faults.supervised_process import SupervisedProcess, ended_after
from services.state.records import UpdatedPreference
from services.state.user_store import Store
from tests.builders import a_history, put_items, some_ids, the_user
from tests.worker.running import work_to_the_end

HISTORY = a_history(some_ids(4))


async def covered(store: Store, interactions: list) -> None:
    await put_items(store, some_ids(4))
    await store.ingest(interactions)
    await work_to_the_end(store, DigestEngine())


async def inconsistencies_of(store: Store) -> Inconsistencies:
    return await check_consistency(
        store, HISTORY, await store.items.load_history_items(some_ids(4))
    )


async def resave(store: Store, **changed: object) -> None:
    user = await the_user(store)
    state = replace(user.state, **changed)
    await store.save_preference(
        UpdatedPreference(user, state, user.preference, user.version, user.writer)
    )


async def test_a_history_that_is_covered_as_a_whole_is_right(store: Store):
    await covered(store, HISTORY)

    assert await inconsistencies_of(store) == Inconsistencies()


async def test_an_interaction_that_is_not_in_the_history_is_lost(store: Store):
    await covered(store, [*HISTORY[:1], *HISTORY[2:]])

    assert await inconsistencies_of(store) == Inconsistencies(
        lost=[HISTORY[1]], preferences_differ=["u1"]
    )


async def test_an_interaction_that_was_never_covered_is_lost(store: Store):
    await covered(store, HISTORY)
    await resave(store, tail=())

    assert await inconsistencies_of(store) == Inconsistencies(
        lost=[HISTORY[3]], preferences_differ=["u1"]
    )


async def test_an_interaction_that_was_covered_twice_is_named(store: Store):
    await covered(store, HISTORY)
    await resave(store, tail=("i4", "i4"))

    assert (await inconsistencies_of(store)).applied_twice == [HISTORY[3]]


async def test_a_user_whose_text_is_another_differs(store: Store):
    await covered(store, HISTORY)
    user = await the_user(store)
    await store.save_preference(
        UpdatedPreference(user, user.state, "other", user.version, user.writer)
    )

    assert await inconsistencies_of(store) == Inconsistencies(preferences_differ=["u1"])


async def test_a_user_of_whom_nothing_is_held_is_lost_as_a_whole(store: Store):
    assert (await inconsistencies_of(store)).lost == HISTORY


def test_a_share_of_the_deliveries_comes_twice_and_everything_comes():
    deliveries = draw_deliveries(300, 20, 20, Random(0))

    sent = [each for batch in deliveries.batches for each in batch]
    assert len(deliveries.interactions) == len(set(deliveries.interactions)) == 300
    assert len(sent) == 360
    assert set(sent) == set(deliveries.interactions)


async def test_a_failure_leaves_no_program_behind_and_says_what_it_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["sh", "-c", "echo it is ready; exec sleep 60"]
    program = SupervisedProcess("sleeper", command, ready="it is", folder=tmp_path)

    with pytest.raises(ZeroDivisionError):
        await fail_while_it_runs(program)

    assert "it is ready" in capsys.readouterr().err
    assert "sleep" not in [child.name() for child in psutil.Process().children()]


async def fail_while_it_runs(program: SupervisedProcess) -> None:
    with ended_after([program]):
        await program.start()
        raise ZeroDivisionError
