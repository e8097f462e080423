"""Texts of another model are written anew: all of them, none lost, those with traffic first."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.batch import build_preferences, publish, summarize_images
from services.core.artifacts import Artifact
from services.core.data_folder.text_writers import (
    TextWriters,
    preference_writer,
    summary_writer,
)
from services.core.errors import (
    ArtifactMismatch,
    EngineRefused,
    EngineUnavailable,
    StateError,
)
from services.core.prompts import GenerationLimits, Messages
from services.core.records import ItemId, UserId
from services.engines.contract import Engine
from services.state.texts.published_texts import PublishedTexts
from services.state.texts.text_origins import RewriterLease, TextOrigins
from services.state.user_store import Store
from services.worker.main import Worker
from tests.artifact_builders import write_interactions, write_items
from tests.builders import DigestEngine, a_history, an_interaction, an_item, some_ids, the_user
from tests.worker.running import QUICK, nothing_waits, until

TITLES = {item_id: f"title of {item_id}" for item_id in some_ids(12)}
HISTORIES = {
    "u1": some_ids(8), "u2": some_ids(12)[4:], "u3": some_ids(2), "u4": some_ids(12)[::-1],
}  # fmt: skip
OLD, NEW = TextWriters.of("old"), TextWriters.of("new")
LIMITS = replace(QUICK, look_for_texts_seconds=0.02, rewriter_seconds=0.5)


async def texts_by(
    model: str, data: Path, *, writer: str | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Summaries by item and preferences by user, as the offline steps write them; preferences by
    `writer` if it is named.
    """
    write_items(str(data), TITLES)
    write_interactions(str(data), HISTORIES)
    await summarize_images.run(str(data), DigestEngine(model=model))
    await build_preferences.run(str(data), DigestEngine(model=writer or model), cut="none")
    summaries = Artifact(str(data), "summaries").read().to_pylist()
    preferences = Artifact(str(data), "preferences-whole").read().to_pylist()
    return (
        {row["item_id"]: row["summary"] for row in summaries},
        {row["user_id"]: row["preference"] for row in preferences},
    )


@pytest.fixture
async def old(store: Store, tmp_path: Path) -> str:
    """The data folder whose texts the model `old` wrote, and which are in Redis."""
    await texts_by("old", tmp_path / "old")
    await publish.run(str(tmp_path / "old"), store)
    return str(tmp_path / "old")


async def stored_texts(store: Store) -> tuple[dict[str, str | None], dict[str, str]]:
    items = await store.items.load_items([ItemId(each) for each in TITLES])
    users = await store.load_users([UserId(each) for each in HISTORIES])
    return (
        {item_id: record.summary for item_id, record in items.items()},
        {user_id: record.preference for user_id, record in users.items()},
    )


@contextlib.asynccontextmanager
async def accepting(
    store: Store,
    engine: Engine,
    *,
    writer: Engine | None = None,
    kill: bool = False,
    accepts: bool = True,
    **limits: float,
) -> AsyncIterator[asyncio.Event]:
    """A worker that accepts the texts of others, or not; stopped at the end, or killed."""
    stop = asyncio.Event()
    given = replace(LIMITS, **limits)
    worker = Worker(store, engine, given, writer=writer, accepts_other_texts=accepts)
    task = asyncio.create_task(worker.run(stop))
    try:
        yield stop
    finally:
        if kill:
            task.cancel()
        stop.set()
        results = await asyncio.gather(task, return_exceptions=True)
    if not kill and isinstance(results[0], BaseException):
        raise results[0]


async def is_rewritten(store: Store, writers: TextWriters = NEW) -> bool:
    note = await TextOrigins(store.connection).load()
    return note is not None and note.rewriting is None and not writers.differing(note.writers)


async def test_in_the_end_every_text_is_what_the_new_model_writes_offline(
    store: Store, old: str, tmp_path: Path
):
    expected = await texts_by("new", tmp_path / "new")

    async with accepting(store, DigestEngine(model="new")):
        await until(lambda: is_rewritten(store))

    assert await stored_texts(store) == expected
    users = await store.load_users([UserId(each) for each in HISTORIES])
    assert {user.writer for user in users.values()} == {preference_writer("new").identity}
    items = await store.items.load_items([ItemId(each) for each in TITLES])
    assert {item.writer for item in items.values()} == {summary_writer("new").identity}
    [summaries, preferences] = await PublishedTexts(store.connection).load_statistics()
    assert (summaries.num_texts, preferences.num_texts) == (len(TITLES), len(HISTORIES))


async def test_a_writer_of_its_own_writes_anew_what_it_wrote_of_other_summaries(
    store: Store, tmp_path: Path
):
    await texts_by("old", tmp_path / "old", writer="writer")
    expected = await texts_by("new", tmp_path / "new", writer="writer")
    await publish.run(str(tmp_path / "old"), store)
    own = TextWriters.by(DigestEngine(model="new").identity, DigestEngine(model="writer").identity)

    async with accepting(store, DigestEngine(model="new"), writer=DigestEngine(model="writer")):
        await until(lambda: is_rewritten(store, own))

    assert await stored_texts(store) == expected


async def test_published_texts_replace_those_that_the_same_writer_wrote_of_other_summaries(
    store: Store, tmp_path: Path
):
    for model in ("old", "new"):
        expected = await texts_by(model, tmp_path / "data", writer="writer")
        await publish.run(str(tmp_path / "data"), store)

        assert await stored_texts(store) == expected


async def test_what_another_model_wrote_of_newcomers_is_left_to_a_worker_of_the_published_texts(
    store: Store, old: str
):
    new = DigestEngine(model="new")
    async with accepting(store, new):
        await until(lambda: is_rewritten(store))
        await store.items.put_item(an_item("newer"), summary=None)
        await store.ingest(a_history(["i1", "newer"], user_id="newcomer"))
        await until(lambda: nothing_waits(store))

    await publish.run(old, store)

    note = await TextOrigins(store.connection).load()
    assert note is not None
    assert note.writers == OLD
    assert note.rewriting is not None
    assert (note.rewriting.num_items_left, note.rewriting.num_users_left) == (1, 1)
    async with accepting(store, DigestEngine(model="old"), accepts=False):
        await until(lambda: is_rewritten(store, OLD))
    user = await the_user(store, "newcomer")
    assert user.writer == preference_writer("old").identity
    items = await store.items.load_items([ItemId("newer")])
    assert items[ItemId("newer")].writer == summary_writer("old").identity


async def test_a_text_stays_until_the_new_one_is_written(store: Store, old: str):
    before = await stored_texts(store)
    engine = DigestEngine(model="new", gate=asyncio.Event())

    async with accepting(store, engine, kill=True):
        await engine.asked.wait()
        assert await stored_texts(store) == before


async def test_a_worker_that_was_killed_in_the_middle_is_followed_by_one_that_finishes(
    store: Store, old: str, tmp_path: Path
):
    expected = await texts_by("new", tmp_path / "new")

    class Dying(DigestEngine):
        async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
            if len(self.prompts) == 15:  # behind the items, among the users
                await asyncio.Event().wait()
            return await super().generate(messages, limits)

    engine = Dying(model="new")
    async with accepting(store, engine, kill=True):
        await until(lambda: _is(len(engine.prompts) == 15))
    assert not await is_rewritten(store)

    async with accepting(store, DigestEngine(model="new")):
        await until(lambda: is_rewritten(store))

    assert await stored_texts(store) == expected


async def _is(value: bool) -> bool:
    return value


async def test_a_long_history_between_two_saves_is_still_marked_as_another_models(
    store: Store, old: str
):
    before = (await the_user(store, "u1")).preference

    class Slow(DigestEngine):
        """Never writes the second block of u1."""

        async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
            text = messages[0].text
            if "title of i4" in text and "Title:" not in text:
                await asyncio.Event().wait()
            return await super().generate(messages, limits)

    async def has_progress() -> bool:
        return len((await the_user(store, "u1")).state.blocks) == 1

    # u1 goes first and alone, by the queue; it saves after each block.
    await store.ingest([an_interaction("i12", user_id="u1", at=10_000)])
    async with accepting(store, Slow(model="new"), kill=True, blocks_between_saves=1, num_users=1):
        await until(has_progress)

    user = await the_user(store, "u1")
    assert user.preference == before
    assert user.writer == preference_writer("new").identity
    assert user.text_writer == preference_writer("old").identity
    assert user.has_texts_of_others(preference_writer("new").identity)


async def test_users_with_traffic_do_not_wait_for_the_others(store: Store, old: str):
    order: list[str] = []

    class Noting(DigestEngine):
        async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
            order.append(messages[0].text)
            await asyncio.sleep(0)
            return await super().generate(messages, limits)

    await store.request_updates([UserId("u3")], anew=True)

    async with accepting(store, Noting(model="new"), num_rewritten_at_once=1):
        await until(lambda: is_rewritten(store))

    preferences = [text for text in order if "Title:" not in text]
    assert '"title of i1"' in preferences[0]  # u3 took i1 and i2
    assert '"title of i3"' not in preferences[0]


async def test_while_the_engine_is_away_nothing_is_lost_and_then_it_goes_on(
    store: Store, old: str, tmp_path: Path
):
    expected = await texts_by("new", tmp_path / "new")
    engine = DigestEngine(model="new", failing={"title of i7": EngineUnavailable("restarts")})

    async with accepting(store, engine):
        await engine.asked.wait()
        await until(lambda: _is(sum("title of i7" in each for each in engine.prompts) > 2))
        assert not await is_rewritten(store)
        engine.failing.clear()
        await until(lambda: is_rewritten(store))

    assert await stored_texts(store) == expected


async def test_an_item_that_the_new_model_refuses_is_described_by_its_title(store: Store, old: str):
    failing = {'Title: "title of i5"': EngineRefused("not this one")}

    async with accepting(store, DigestEngine(model="new", failing=failing), num_tries=2):
        await until(lambda: is_rewritten(store))

    record = (await store.items.load_items([ItemId("i5")]))[ItemId("i5")]
    assert (record.status, record.summary) == ("failed", None)
    assert "not this one" in (record.reason or "")


async def test_a_user_whom_the_new_model_refuses_keeps_the_old_text_and_its_mark(
    store: Store, old: str
):
    before = (await the_user(store, "u3")).preference

    class Refusing(DigestEngine):
        async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
            text = messages[0].text
            if "title of i2" in text and "title of i3" not in text and "Title:" not in text:
                raise EngineRefused("not this user")
            return await super().generate(messages, limits)

    async with accepting(store, Refusing(model="new"), num_tries=2):
        await until(lambda: is_rewritten(store))

    user = await the_user(store, "u3")
    assert user.preference == before
    assert user.has_texts_of_others(preference_writer("new").identity)


async def test_two_workers_of_one_model_write_each_summary_once(store: Store, old: str):
    engines = [DigestEngine(model="new"), DigestEngine(model="new")]

    async with accepting(store, engines[0]), accepting(store, engines[1]):
        await until(lambda: is_rewritten(store))

    summaries = [text for each in engines for text in each.prompts if "Title:" in text]
    assert len(summaries) == len(set(summaries)) == len(TITLES)


async def test_a_rewriter_of_a_third_model_is_refused_while_one_is_at_work(store: Store, old: str):
    origins = TextOrigins(store.connection)
    await origins.hold_lease(RewriterLease(NEW, "another process"), seconds=60)

    worker = Worker(store, DigestEngine(model="third"), LIMITS, accepts_other_texts=True)
    with pytest.raises(ArtifactMismatch, match="are being written anew by another model"):
        await worker.run(asyncio.Event())

    note = await origins.load()
    assert note is not None
    assert note.writers.summaries == OLD.summaries


async def test_a_worker_that_accepts_nothing_is_refused_with_what_to_do(store: Store, old: str):
    with pytest.raises(ArtifactMismatch, match=r"by old.*; start it with .*--accept-other-texts"):
        await Worker(store, DigestEngine(model="new"), LIMITS).run(asyncio.Event())


async def test_a_worker_ends_when_another_model_begins_to_rewrite_its_texts(store: Store, old: str):
    plain = asyncio.create_task(
        Worker(store, DigestEngine(model="old"), LIMITS).run(asyncio.Event())
    )
    gate = asyncio.Event()

    async with accepting(store, DigestEngine(model="new", gate=gate), kill=True):
        with pytest.raises(ArtifactMismatch, match="texts of another model"):
            await plain


async def test_what_arrives_during_the_rewriting_is_the_new_models_too(store: Store, old: str):
    gate = asyncio.Event()
    engine = DigestEngine(model="new", gate=gate)

    async with accepting(store, engine):
        await engine.asked.wait()
        await store.items.put_item(an_item("i13"), summary=None)
        await store.ingest([an_interaction("i1", user_id="newcomer")])
        await store.forget_user(UserId("u2"))
        await store.items.delete_item(ItemId("i12"))
        gate.set()
        await until(lambda: is_rewritten(store))

        async def is_updated() -> bool:
            return (await the_user(store, "newcomer")).preference != ""

        await until(is_updated)

    assert await store.load_user(UserId("u2")) is None
    assert (await the_user(store, "newcomer")).writer == preference_writer("new").identity
    items = await store.items.load_items([ItemId("i12"), ItemId("i13")])
    assert {item_id: item.writer for item_id, item in items.items()} == {
        "i13": summary_writer("new").identity
    }


async def test_texts_that_are_published_meanwhile_are_written_anew_as_well(
    store: Store, old: str, tmp_path: Path
):
    gate = asyncio.Event()
    engine = DigestEngine(model="new", gate=gate)
    await texts_by("third", tmp_path / "third")
    expected = await texts_by("new", tmp_path / "new")

    async with accepting(store, engine):
        await engine.asked.wait()
        await publish.run(str(tmp_path / "third"), store)
        gate.set()
        await until(lambda: is_rewritten(store))

    assert await stored_texts(store) == expected


async def test_texts_of_nobody_knows_whom_are_written_anew_if_they_are_accepted(
    store: Store, old: str, tmp_path: Path
):
    expected = await texts_by("new", tmp_path / "new")
    # As an earlier version leaves it: no note, and items without a writer.
    await store.connection.call("DEL", "msr:texts")
    for item_id in TITLES:
        await store.connection.call("HDEL", _key_of(item_id), "writer")

    async with accepting(store, DigestEngine(model="new")):
        await until(lambda: is_rewritten(store))

    assert await stored_texts(store) == expected


def _key_of(item_id: str) -> str:
    from services.state import keys

    return keys.item(ItemId(item_id))


@pytest.mark.parametrize("accepts", [True, False])
async def test_a_note_that_cannot_be_read_ends_the_worker_with_what_to_do(
    accepts: bool, store: Store, old: str
):
    await store.connection.call("HSET", "msr:texts", "summaries", "by other code")
    worker = Worker(store, DigestEngine(model="old"), LIMITS, accepts_other_texts=accepts)

    with pytest.raises(StateError, match="DEL msr:texts"):
        await worker.run(asyncio.Event())
