"""Cuts at the moments that matter: what was done, what was not, and what arrives late."""

import asyncio

import pytest

from benchmarks.faults.network import Network
from services.core.errors import StateUnavailable
from services.state.connection import read_script
from services.state.user_store import Store
from tests.builders import DigestEngine, a_history, an_interaction, offline, some_ids, the_user
from tests.worker.running import dying, nothing_waits, until, work_to_the_end


async def digest_of(store: Store, name: str) -> bytes:
    """By which a request of this script is known; Redis knows it too from now on."""
    source, digest = read_script(name)
    await store.connection.call("SCRIPT", "LOAD", source)
    return digest.encode()


async def test_a_worker_that_dies_between_save_and_acknowledgement_has_no_second_effect(
    network: Network, store: Store, far_store: Store
):
    trap = network.set_trap(b"XACK", "before")
    await store.ingest(a_history(some_ids(4)))
    async with dying(far_store, DigestEngine()):
        await trap.sprung.wait()
    saved = await the_user(store)
    engine = DigestEngine()

    await work_to_the_end(store, engine)

    assert engine.prompts == []
    assert await the_user(store) == saved
    assert (saved.state, saved.preference) == await offline(some_ids(4))


async def test_a_worker_that_dies_before_its_save_leaves_everything_to_the_next(
    network: Network, store: Store, far_store: Store
):
    trap = network.set_trap(await digest_of(store, "save_preference"), "before")
    await store.ingest(a_history(some_ids(4)))
    async with dying(far_store, DigestEngine()):
        await trap.sprung.wait()

    await work_to_the_end(store, DigestEngine())

    user = await the_user(store)
    assert (user.state, user.preference) == await offline(some_ids(4))


async def test_a_save_whose_answer_is_lost_has_effect_once(
    network: Network, store: Store, far_store: Store
):
    trap = network.set_trap(await digest_of(store, "save_preference"), "after")
    await store.ingest(a_history(some_ids(4)))
    before = await the_user(store)
    engine = DigestEngine()

    async with dying(far_store, engine):
        await trap.sprung.wait()
        network.heal()
        await until(lambda: nothing_waits(store))

    user = await the_user(store)
    assert (user.state, user.preference) == await offline(some_ids(4))
    assert user.revision == before.revision + 1
    assert len(engine.prompts) == 2  # the block and the tail, once


async def test_interactions_whose_answer_is_lost_are_duplicates_when_they_are_sent_again(
    network: Network, store: Store, far_store: Store
):
    history = a_history(some_ids(4))
    network.set_trap(await digest_of(store, "ingest"), "after")
    with pytest.raises(StateUnavailable):
        await far_store.ingest(history)
    network.heal()

    again = await far_store.ingest(history)

    assert [each.outcome for each in again] == ["duplicate"] * 4
    assert (await the_user(store)).version == 4


async def test_interactions_that_arrive_after_their_sender_gave_up_count_once(
    network: Network, store: Store, far_store: Store
):
    network.cut(silently=True)
    with pytest.raises(StateUnavailable):
        await far_store.ingest(a_history(some_ids(4)))
    await store.ingest(a_history(some_ids(4)))
    await far_store.close()
    network.heal()
    await until(lambda: asyncio.sleep(0, network.num_open == 0))

    await work_to_the_end(store, DigestEngine())

    user = await the_user(store)
    assert (user.version, user.item_ids) == (4, tuple(some_ids(4)))
    assert (user.state, user.preference) == await offline(some_ids(4))


async def test_a_save_that_arrives_after_another_workers_save_changes_nothing(
    network: Network, store: Store, far_store: Store
):
    await store.ingest(a_history(some_ids(2)))
    slow = DigestEngine(gate=asyncio.Event())
    async with dying(far_store, slow):
        await slow.asked.wait()
        network.cut(silently=True)
        slow.gate.set()
        await store.ingest([an_interaction("i3", at=9)])
        await work_to_the_end(store, DigestEngine())
        saved = await the_user(store)
    await far_store.close()
    network.heal()
    await until(lambda: asyncio.sleep(0, network.num_open == 0))

    assert await the_user(store) == saved
    assert (saved.state, saved.preference) == await offline(some_ids(3))
