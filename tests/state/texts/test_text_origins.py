"""The note on who wrote the texts in Redis, and the lease of who writes them anew."""

import asyncio

import pytest

from services.core.data_folder.text_writers import TextWriter, TextWriters
from services.core.errors import ArtifactMismatch, StateError
from services.state import keys
from services.state.texts.text_origins import RewriterLease, Rewriting, TextNote, TextOrigins
from services.state.user_store import Store

A = TextWriters.of("a", "Model A")
B = TextWriters.of("owner/b@1", "Model B")


@pytest.fixture
def origins(store: Store) -> TextOrigins:
    return TextOrigins(store.connection)


async def test_a_redis_without_a_note_says_nothing(origins: TextOrigins):
    assert await origins.load() is None


async def test_the_note_names_the_writers_and_the_rewriting(origins: TextOrigins):
    rewriting = Rewriting(TextWriters(B.summaries, TextWriter("p", "P")), 10, 4, 5, 5)

    await origins.save_published(A)
    await origins.save_rewriting(rewriting)

    note = await origins.load()
    assert note == TextNote(A, rewriting)
    assert note.writers.summaries.name == "Model A"


async def test_without_preferences_the_note_has_none(origins: TextOrigins):
    await origins.save_published(A)
    await origins.save_published(TextWriters(B.summaries, None))

    note = await origins.load()
    assert note is not None
    assert note.writers.preferences is None


async def test_newly_published_texts_end_the_note_of_a_rewriting(origins: TextOrigins):
    await origins.save_published(A)
    await origins.save_rewriting(Rewriting(B))

    await origins.save_published(A)

    assert await origins.load() == TextNote(A)


async def test_a_rewriting_ends_only_if_nothing_was_published_meanwhile(origins: TextOrigins):
    await origins.save_published(A)
    before = await origins.load()
    await origins.save_published(TextWriters.of("c"))

    assert not await origins.finish_rewriting(before, B)
    assert await origins.finish_rewriting(await origins.load(), B)
    assert await origins.load() == TextNote(B)


async def test_the_statistics_beside_the_note_are_left_alone(store: Store, origins: TextOrigins):
    await store.connection.call("HSET", keys.TEXTS, "statistics", "[]")

    await origins.save_published(A)
    await origins.finish_rewriting(await origins.load(), B)

    assert await store.connection.call("HGET", keys.TEXTS, "statistics") == b"[]"


@pytest.mark.parametrize("value", [b"", b"no json", b"[]", b"\xff"])
async def test_a_note_of_other_code_says_what_to_delete(
    value: bytes, store: Store, origins: TextOrigins
):
    await store.connection.call("HSET", keys.TEXTS, "summaries", value)

    with pytest.raises(StateError, match=f"DEL {keys.TEXTS}"):
        await origins.load()


async def test_one_process_holds_the_lease_until_it_lets_go(origins: TextOrigins):
    first, second = RewriterLease(A, "p1"), RewriterLease(A, "p2")

    assert await origins.hold_lease(first, seconds=60) == first
    assert await origins.hold_lease(second, seconds=60) == first
    assert await origins.hold_lease(first, seconds=60) == first
    await origins.release_lease(second)  # not its own
    assert await origins.hold_lease(second, seconds=60) == first
    await origins.release_lease(first)
    assert await origins.hold_lease(second, seconds=60) == second


async def test_the_lease_of_a_killed_process_expires(store: Store, origins: TextOrigins):
    await origins.hold_lease(RewriterLease(A, "p1"), seconds=0.05)

    async with asyncio.timeout(30):
        while await store.connection.call("EXISTS", keys.REWRITER):  # noqa: ASYNC110 - Redis sets no event for it
            await asyncio.sleep(0.01)

    other = RewriterLease(B, "p2")
    assert await origins.hold_lease(other, seconds=60) == other


def test_what_differs_is_said_once_for_both_kinds_with_names_and_what_to_do():
    with pytest.raises(ArtifactMismatch) as raised:
        A.require(B)

    assert "summaries and preferences are by Model B (owner/b@1)" in str(raised.value)
    assert "this process writes by Model A (a)" in str(raised.value)
    assert "--accept-other-texts" in str(raised.value).rpartition("; ")[2]


def test_another_prompt_of_the_same_model_is_not_called_another_model():
    older = TextWriters(TextWriter("a/older", "Model A"), A.preferences)

    assert A.difference(older) == (
        "summaries are by Model A (a), written by another prompt or sampling, or of other summaries"
    )


def test_texts_of_nobody_known_are_called_so():
    assert "by a model that is not known" in A.difference(TextWriters(TextWriter(), A.preferences))
