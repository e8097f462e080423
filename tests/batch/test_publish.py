"""`msr publish`: artifacts into the store, once or again, without losing what came online."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.batch import build_preferences, publish, summarize_images
from services.cli import app
from services.core.artifacts import Artifact
from services.core.data_folder.text_writers import TextWriters
from services.core.errors import ArtifactMismatch, ArtifactMissing, EngineRefused
from services.core.records import ItemId, UserId
from services.core.splits import Cut
from services.state import keys
from services.state.texts.published_texts import PublishedTexts
from services.state.texts.text_origins import TextNote, TextOrigins
from services.state.user_store import Store
from services.worker.main import Worker
from tests.artifact_builders import write_interactions, write_items
from tests.builders import DigestEngine, an_interaction, the_user, updated_by_hand
from tests.worker.running import QUICK, nothing_waits, until, work_to_the_end

TITLES = {f"i{k}": f"title of i{k}" for k in range(1, 10)}
HISTORIES = {"u1": ["i1", "i2", "i3", "i4", "i5", "i6", "i7"], "u2": ["i8", "i9"]}


@pytest.fixture
async def data(tmp_path: Path) -> str:
    data = str(tmp_path / "data")
    write_items(data, TITLES, images={"i1": b"image"})
    write_interactions(data, HISTORIES)
    engine = DigestEngine(failing={'Title: "title of i9"': EngineRefused("not this one")})
    await summarize_images.run(data, engine)
    return data


async def build(data: str, cut: Cut = "none", **options: int) -> None:
    await build_preferences.run(data, DigestEngine(), cut=cut, **options)


async def test_items_come_with_image_and_summary_or_the_reason_why_not(store: Store, data: str):
    counts = await publish.run(data, store)

    items = await store.items.load_items([ItemId("i1"), ItemId("i9")])
    assert counts["items"] == 9
    assert (items[ItemId("i1")].item.image, items[ItemId("i1")].status) == (b"image", "ready")
    assert (items[ItemId("i9")].status, items[ItemId("i9")].reason) == ("failed", "not this one")


async def test_histories_come_without_being_updated(store: Store, data: str):
    counts = await publish.run(data, store)

    user = await the_user(store, "u1")
    assert list(user.item_ids) == HISTORIES["u1"]
    assert (user.preference, user.preference_version, user.version) == ("", 0, 7)
    assert (counts["preferences"], counts["queued"]) == (0, 0)
    assert await nothing_waits(store)


async def test_whole_preferences_are_there_at_once(store: Store, data: str):
    await build(data)

    counts = await publish.run(data, store)

    user = await the_user(store, "u1")
    row = Artifact(data, "preferences-whole").read().to_pylist()[0]
    assert user.preference == row["preference"]
    assert [entry.preference for entry in user.timeline] == row["block_preferences"]
    assert (user.version, user.preference_version, counts["queued"]) == (7, 7, 0)


async def test_what_a_cut_preference_has_not_seen_is_queued(store: Store, data: str):
    await build(data, "last")

    counts = await publish.run(data, store)

    user = await the_user(store, "u1")
    assert (user.preference_version, user.version, counts["queued"]) == (6, 7, 2)
    assert not await nothing_waits(store)


async def test_users_without_a_preference_are_not_queued(store: Store, data: str):
    await build(data, "last", num_users=1)

    counts = await publish.run(data, store)

    assert counts["queued"] == 1
    assert (await the_user(store, "u2")).item_ids == ("i8", "i9")
    assert await store.request_update(UserId("u2"))


async def test_publishing_again_changes_nothing(store: Store, data: str):
    await build(data)
    await publish.run(data, store)
    before = await the_user(store, "u1")

    counts = await publish.run(data, store)

    assert counts["published_before"] == 1
    assert await the_user(store, "u1") == before


async def test_a_publication_that_was_cut_short_is_completed(store: Store, data: str):
    await build(data)
    await publish.run(data, store)
    await store.save_published("")  # killed before its end
    await store.items.delete_item(ItemId("i2"))

    await publish.run(data, store)

    assert await store.items.item_ids_known([ItemId("i2")]) == {"i2"}
    assert (await the_user(store, "u1")).version == 7


async def test_interactions_and_texts_from_online_outlive_a_new_publication(
    store: Store, data: str
):
    await build(data, "last")
    await publish.run(data, store)
    await store.ingest([an_interaction("i9", user_id="u1")])
    await work_to_the_end(store, DigestEngine())
    online = await the_user(store, "u1")

    await build(data)
    await publish.run(data, store)

    assert await the_user(store, "u1") == online
    assert online.item_ids == (*HISTORIES["u1"], "i9")


async def test_texts_of_another_model_give_way_to_the_published_ones(store: Store, data: str):
    await publish.run(data, store)
    by_another = replace(updated_by_hand(await the_user(store, "u1")), writer="another")
    await store.save_preference(by_another)
    await build(data)

    await publish.run(data, store)

    user = await the_user(store, "u1")
    assert (
        user.preference == Artifact(data, "preferences-whole").read().to_pylist()[0]["preference"]
    )


async def test_a_published_block_that_a_late_interaction_fell_into_is_not_used(
    store: Store, data: str
):
    await publish.run(data, store)
    late = an_interaction("i9", user_id="u1", event_id="late")
    late = type(late)(late.user_id, late.item_id, 4500, late.event_id)  # between i4 and i5
    await store.ingest([late])
    await build(data)

    await publish.run(data, store)

    user = await the_user(store, "u1")
    assert [block.elements for block in user.state.blocks] == [("i1", "i2", "i3")]
    assert user.preference_version < user.version


async def test_a_missing_step_is_named(tmp_path: Path, store: Store):
    with pytest.raises(ArtifactMissing, match="msr prepare-catalogue"):
        await publish.run(str(tmp_path), store)


async def test_artifacts_that_do_not_belong_together_are_refused(store: Store, data: str):
    await build(data)
    write_interactions(data, {"u1": ["i1", "i2", "i3"]})

    with pytest.raises(ArtifactMismatch, match=r"other interactions.*msr build-preferences"):
        await publish.run(data, store)


async def test_how_much_the_texts_vary_is_noted_beside_them(store: Store, data: str):
    await build(data)

    await publish.run(data, store)

    found = await PublishedTexts(store.connection).load_statistics()
    assert [(each.kind, each.num_texts) for each in found] == [
        ("summaries", 8), ("preferences", 2),
    ]  # fmt: skip
    assert found[0].num_empty == 1


async def test_what_an_older_version_published_is_noted_too(store: Store, data: str):
    await publish.run(data, store)
    await store.connection.call("DEL", keys.TEXTS)

    counts = await publish.run(data, store)

    assert counts["published_before"] == 1
    assert await PublishedTexts(store.connection).load_statistics()


async def written_anew(store: Store, data: str) -> None:
    """Publish, and let a worker of another model write everything anew."""
    await build(data)
    await publish.run(data, store)
    stop = asyncio.Event()
    limits = replace(QUICK, look_for_texts_seconds=0.02)
    worker = Worker(store, DigestEngine(model="new"), limits, accepts_other_texts=True)
    new = TextWriters.of("new")

    async def is_done() -> bool:
        note = await TextOrigins(store.connection).load()
        return note is not None and not new.differing(note.writers)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.run(stop))
        await until(is_done)
        stop.set()


async def summaries_in(store: Store) -> dict[str, str | None]:
    items = await store.items.load_items([ItemId(each) for each in TITLES])
    return {item_id: record.summary for item_id, record in items.items()}


async def test_publishing_puts_the_data_folders_texts_back(store: Store, data: str):
    await build(data)
    await publish.run(data, store)
    summaries, user = await summaries_in(store), await the_user(store, "u1")
    await written_anew(store, data)
    assert await summaries_in(store) != summaries

    await publish.run(data, store)

    assert await summaries_in(store) == summaries
    assert (await the_user(store, "u1")).preference == user.preference
    assert (await the_user(store, "u1")).text_writer == user.text_writer


async def test_a_publication_that_is_killed_while_it_puts_texts_back_goes_on(
    store: Store, data: str, monkeypatch: pytest.MonkeyPatch
):
    await publish.run(data, store)
    before = await summaries_in(store)
    await written_anew(store, data)

    async def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(publish, "_publish_items", die)
        with pytest.raises(KeyboardInterrupt):
            await publish.run(data, store)
    assert await summaries_in(store) != before

    assert not (await publish.run(data, store))["published_before"]
    assert await summaries_in(store) == before


async def test_the_command_puts_them_back_and_says_so(
    store: Store, data: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("REDIS_URL", redis_url)
    await written_anew(store, data)
    command = ["publish", "--data", data, "--json"]

    first = await asyncio.to_thread(CliRunner().invoke, app, command, catch_exceptions=False)
    again = await asyncio.to_thread(CliRunner().invoke, app, command, catch_exceptions=False)

    published_before = [json.loads(each.stdout)["published_before"] for each in (first, again)]
    assert published_before == [0, 1]
    rows = Artifact(data, "summaries").read().to_pylist()
    expected = {row["item_id"]: row["summary"] for row in rows}
    assert await summaries_in(store) == {"i9": None} | expected
    rows = Artifact(data, "preferences-whole").read().to_pylist()
    assert (await the_user(store, "u1")).preference == rows[0]["preference"]


async def test_a_server_keeps_what_was_written_anew(store: Store, data: str):
    await written_anew(store, data)
    summaries = await summaries_in(store)

    counts = await publish.run(data, store, keep_rewritten=True)

    assert counts["published_before"] == 1
    assert await summaries_in(store) == summaries


async def test_a_redis_that_an_older_version_filled_gets_its_note_and_nothing_else(
    store: Store, data: str
):
    await build(data)
    await publish.run(data, store)
    await store.connection.call("DEL", keys.TEXTS)

    counts = await publish.run(data, store)

    assert counts["published_before"] == 1
    note = await TextOrigins(store.connection).load()
    assert note == TextNote(publish.writers_in(data))
    assert await PublishedTexts(store.connection).load_statistics()


async def test_an_item_without_a_summary_in_the_artifact_loses_that_of_another_model(
    store: Store, data: str
):
    await publish.run(data, store)
    record = (await store.items.load_items([ItemId("i9")]))[ItemId("i9")]
    await store.items.save_summary(ItemId("i9"), record.version, "by another", writer="another")
    await build(data)  # other artifacts, so that they are published again

    await publish.run(data, store)

    record = (await store.items.load_items([ItemId("i9")]))[ItemId("i9")]
    assert (record.status, record.summary) == ("failed", None)


async def covers_in(store: Store, *item_ids: str) -> list[bytes | None]:
    items = await store.items.load_items([ItemId(each) for each in item_ids])
    return [await store.items.load_cover(each, record.version) for each, record in items.items()]


async def test_covers_come_to_a_redis_that_was_filled_without_them(store: Store, data: str):
    await publish.run(data, store)
    assert await covers_in(store, "i1", "i2") == [None, None]

    write_items(data, TITLES, images={"i1": b"image"}, covers={"i1": b"cover"})
    counts = await publish.run(data, store)

    assert counts["published_before"] == 0
    assert await covers_in(store, "i1", "i2") == [b"cover", None]
    assert (await publish.run(data, store))["published_before"] == 1


async def test_texts_that_are_newer_than_the_artifacts_outlive_the_coming_of_covers(
    store: Store, data: str
):
    await build(data, "last")
    await publish.run(data, store)
    await store.ingest([an_interaction("i9", user_id="u1")])
    await work_to_the_end(store, DigestEngine())
    i9 = (await store.items.load_items([ItemId("i9")]))[ItemId("i9")]
    await store.items.save_summary(i9.item.item_id, i9.version, "written since", writer=i9.writer)
    summaries, user = await summaries_in(store), await the_user(store, "u1")

    write_items(data, TITLES, images={"i1": b"image"}, covers={"i1": b"cover", "i9": b"late"})
    await publish.run(data, store)

    assert await covers_in(store, "i1", "i9") == [b"cover", b"late"]
    assert await summaries_in(store) == summaries
    assert summaries["i9"] == "written since"
    assert await the_user(store, "u1") == user
