"""A writer of its own online: its worker writes what `build-preferences` wrote offline."""

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr

from benchmarks.families.writers import write_writer
from services.batch import build_preferences, summarize_images
from services.core.artifacts import Artifact
from services.deployment.assemble import EngineChoice, choose_engine, serve
from services.deployment.settings import Settings
from services.state.user_store import Store
from tests.artifact_builders import write_interactions, write_items
from tests.builders import a_history, some_ids, the_user
from tests.worker.running import nothing_waits, until

HISTORIES = {"u1": some_ids(8), "u2": some_ids(8)[::-1], "u3": some_ids(2)}


@pytest.fixture
def choice(redis_url: str, tmp_path: Path) -> EngineChoice:
    writer = write_writer("qwen-3-thinking", tmp_path / "small-writer")
    settings = Settings().model_copy(
        update={"redis_url": SecretStr(redis_url), "writer": str(writer)}
    )
    return choose_engine(str(tmp_path), settings, kind="local", model=None, adapter=None)


async def preferences_offline(data: str, choice: EngineChoice) -> dict[str, str]:
    """By user id."""
    write_items(data, {item_id: f"title of {item_id}" for item_id in some_ids(8)})
    write_interactions(data, HISTORIES)
    model, writer = await choice.open(), await choice.for_preferences().open()
    await summarize_images.run(data, model)
    await build_preferences.run(data, writer, cut="none")
    await model.close()
    await writer.close()
    rows = Artifact(data, "preferences-whole").read().to_pylist()
    return {row["user_id"]: row["preference"] for row in rows}


async def test_a_history_that_arrives_online_ends_in_the_offline_preference(
    store: Store, choice: EngineChoice, tmp_path: Path
):
    expected = await preferences_offline(str(tmp_path), choice)
    listening, stop = asyncio.Event(), asyncio.Event()
    where = {"host": "127.0.0.1", "port": 0, "with_worker": True, "stop": stop}

    async with asyncio.TaskGroup() as tasks:
        serving = serve(
            str(tmp_path), choice, choice.settings, on_listening=lambda _: listening.set(), **where
        )
        tasks.create_task(serving)
        await listening.wait()
        for user, item_ids in HISTORIES.items():
            await store.ingest(a_history(item_ids, user_id=f"new {user}"))
        await until(lambda: nothing_waits(store))
        stop.set()

    found = {user: (await the_user(store, f"new {user}")).preference for user in HISTORIES}
    assert found == expected
    assert len(set(expected.values())) == len(HISTORIES)
