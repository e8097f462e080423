"""Whatever the order of arrival, online preferences are those that step 3 writes offline."""

import random
from pathlib import Path
from typing import Any

import pytest

from services.batch import build_preferences, publish, summarize_images
from services.core.artifacts import Artifact
from services.core.errors import EngineRefused
from services.core.ids import derive_event_id
from services.core.records import Interaction, ItemId, UserId
from services.state.user_store import Store
from tests.artifact_builders import write_interactions, write_items
from tests.builders import DigestEngine
from tests.worker.running import nothing_waits, until, work_to_the_end, working

NUM_USERS = 200
ITEM_IDS = [f"item {k}" for k in range(40)]


def an_engine() -> DigestEngine:
    """Refuses to describe one item, so that both ways meet an item without a summary."""
    return DigestEngine(failing={'Title: "title 7"\n': EngineRefused("not this one")})


@pytest.fixture(scope="module")
def histories() -> dict[str, list[str]]:
    chance = random.Random(5)
    return {
        f"user {k}": chance.choices(ITEM_IDS, k=chance.randint(1, 11)) for k in range(NUM_USERS)
    }


@pytest.fixture
async def data(tmp_path: Path, histories: dict[str, list[str]]) -> str:
    data = str(tmp_path)
    write_items(data, {item_id: f"title {k}" for k, item_id in enumerate(ITEM_IDS)})
    write_interactions(data, histories)
    await summarize_images.run(data, an_engine())
    return data


async def offline_preferences(data: str) -> dict[str, tuple[list[str], str]]:
    """Texts after each block, and the current one, by user."""
    await build_preferences.run(data, an_engine(), cut="none")
    rows = Artifact(data, "preferences-whole").read().to_pylist()
    return {row["user_id"]: (row["block_preferences"], row["preference"]) for row in rows}


async def online_preferences(store: Store, users: Any) -> dict[str, tuple[list[str], str]]:
    records = await store.load_users(UserId(user) for user in users)
    return {
        user: ([block.preference for block in record.state.blocks], record.preference)
        for user, record in records.items()
    }


def interactions_of(histories: dict[str, list[str]]) -> list[Interaction]:
    """As `write_interactions` dates them."""
    return [
        Interaction(
            UserId(user), ItemId(item), 1000 * (k + 1), derive_event_id(user, item, 1000 * (k + 1))
        )
        for user, items in histories.items()
        for k, item in enumerate(items)
    ]


async def test_any_order_of_arrival_gives_the_offline_preference(
    store: Store, data: str, histories: dict[str, list[str]]
):
    await publish_items(data, store)
    chance = random.Random(6)
    arrivals = interactions_of(histories)
    arrivals += chance.sample(arrivals, len(arrivals) // 5)  # delivered twice
    chance.shuffle(arrivals)

    async with working(store, an_engine()):
        while arrivals:
            size = chance.randint(1, 200)
            await store.ingest(arrivals[:size])
            del arrivals[:size]
        await until(lambda: nothing_waits(store))

    assert await online_preferences(store, histories) == await offline_preferences(data)


async def publish_items(data: str, store: Store) -> None:
    """The catalogue as published, and nobody's history."""
    await publish.run(data, store)
    for k in range(NUM_USERS):
        await store.forget_user(UserId(f"user {k}"))


async def test_a_published_beginning_is_carried_on_to_the_offline_preference(
    store: Store, data: str, histories: dict[str, list[str]]
):
    await build_preferences.run(data, an_engine(), cut="last")
    await publish.run(data, store)
    engine = an_engine()

    await work_to_the_end(store, engine)

    with_a_cut = {user: items for user, items in histories.items() if len(items) > 1}
    expected = await offline_preferences(data)
    online = await online_preferences(store, with_a_cut)
    assert online == {user: expected[user] for user in with_a_cut}
    assert len(engine.prompts) == len(with_a_cut)  # one block or tail each: the rest was published
