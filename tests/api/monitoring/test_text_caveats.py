"""What keeps texts and scores from being taken at their word: in health and in answers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from services.core.data_folder.text_writers import TextWriters, preference_writer
from services.core.records import UserId
from services.engines.models.model_card import ModelCard
from services.state.texts.text_origins import Rewriting, TextOrigins
from services.state.user_store import Store
from services.state.work_queue import WorkQueue
from tests.api.builders import IDENTITY, an_app, put_user, send
from tests.artifact_builders import write_items
from tests.engines.conftest import a_manifest

OWN = TextWriters.of(IDENTITY.model, IDENTITY.name)
OTHER = TextWriters.of("another", "Another model")
OWN_PREFERENCES = preference_writer(IDENTITY.model).identity


async def texts_health(app: FastAPI) -> dict[str, Any]:
    await app.state.deps.caveats.look()
    answer = (await send(app, "GET", "/health/ready")).json()
    health: dict[str, Any] = answer["components"]["texts"]
    return health


async def caveats(app: FastAPI, user_id: str = "u1", **fields: Any) -> list[str]:
    await app.state.deps.caveats.look()
    response = await send(app, "POST", "/recommend", {"user_id": user_id, **fields})
    found: list[str] = response.json()["caveats"]
    return found


def with_card(app: FastAPI, card: ModelCard) -> FastAPI:
    """The scoring model has this card."""
    app.state.deps.caveats._card = card
    return app


async def test_own_texts_are_well_and_their_writer_is_named(store: Store):
    app = an_app(store)
    await TextOrigins(store.connection).save_published(OWN)

    health = await texts_health(app)

    assert health["state"] == "ok"
    assert f"summaries by {IDENTITY.model}" in health["detail"]


async def test_texts_of_another_model_are_named_with_both_models(store: Store):
    app = an_app(store)
    await TextOrigins(store.connection).save_published(OTHER)

    health = await texts_health(app)

    assert health["state"] == "degraded"
    assert "by Another model (another)" in health["detail"]
    assert "--accept-other-texts" in health["detail"]


async def test_while_they_are_written_anew_it_says_what_is_left(store: Store):
    app = an_app(store)
    await TextOrigins(store.connection).save_published(OTHER)
    rewriting = Rewriting(OWN, 1200, 7, 90, 90)
    await TextOrigins(store.connection).save_rewriting(rewriting)

    detail = (await texts_health(app))["detail"]

    assert "7 of 1,200 items and 90 of 90 users are left" in detail


async def test_texts_that_another_model_left_behind_are_counted(store: Store):
    app = an_app(store)
    await TextOrigins(store.connection).save_published(OWN, Rewriting(OWN, 65, 1, 61, 2))

    health = await texts_health(app)

    assert health["state"] == "degraded"
    assert "1 of 65 items and 2 of 61 users are left" in health["detail"]


async def test_own_texts_that_another_model_writes_anew_are_named_with_both_models(store: Store):
    app = an_app(store)
    await TextOrigins(store.connection).save_published(OWN, Rewriting(OTHER, 65, 1, 61, 2))

    health = await texts_health(app)

    assert health["state"] == "degraded"
    assert "texts of another model: summaries and preferences are by Another" in health["detail"]


async def test_texts_of_nobody_known_say_what_to_run(store: Store):
    app = an_app(store)
    await store.save_published("by an earlier version")

    assert "`msr publish` once" in (await texts_health(app))["detail"]


async def test_a_user_of_another_models_text_is_marked_and_queued_once(store: Store):
    app = an_app(store)
    await put_user(store, "u1", ["i1", "i2", "i3"], preference="foxes", writer="another/prompt")

    assert await caveats(app) == ["texts-of-another-model"]
    assert await caveats(app) == ["texts-of-another-model"]
    answer = (await send(app, "GET", "/users/u1/preference")).json()
    assert (answer["by_another_model"], answer["writer"]) == (True, "another/prompt")

    queue = WorkQueue(store, consumer="test")
    await queue.create_groups()
    waiting = await queue.read("users", count=10, block_seconds=0.01)
    # One by the interactions, one by the first of the rankings.
    assert [delivery.subject for delivery in waiting] == [UserId("u1")] * 2


async def test_an_own_text_is_neither_marked_nor_queued(store: Store):
    app = an_app(store)
    await put_user(store, "u1", ["i1", "i2", "i3"], preference="foxes")

    assert await caveats(app) == []


async def test_a_cheap_ranking_asks_no_model_and_has_no_caveat(store: Store):
    app = with_card(an_app(store), ModelCard("Toy", ("ab" * 32,)))
    await put_user(store, "u1", ["i1"], preference="foxes", writer="another/prompt")

    assert await caveats(app, mode="cheap") == []


async def test_a_model_of_another_catalogue_is_named_in_health_and_answers(
    store: Store, tmp_path: Path
):
    write_items(str(tmp_path), {"i1": "one"})
    app = with_card(an_app(store, data=str(tmp_path)), ModelCard("Toy", ("ab" * 32,)))

    assert "Toy knows its own catalogue only, not this one" in (await texts_health(app))["detail"]
    assert await caveats(app) == ["model-of-another-catalogue"]


@pytest.mark.parametrize(
    ("preferences_by", "is_foreign"),
    [
        (OWN_PREFERENCES, False),
        ("another/prompt", True),
        (f"{OWN_PREFERENCES}+t0.6", True),
        ("", False),
    ],
)
def test_figures_of_preferences_by_another_writer_are_foreign(
    store: Store, preferences_by: str, is_foreign: bool
):
    adapter = replace(a_manifest(), preferences_by=preferences_by)

    assert an_app(store).state.deps.caveats.is_foreign(adapter) is is_foreign
