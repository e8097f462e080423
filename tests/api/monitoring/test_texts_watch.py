"""Texts that do not vary show in health, in the progress of the steps and as a metric."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from services.batch import summarize_images
from services.core.data_folder.text_statistics import TextStatistics
from services.state import keys
from services.state.texts.published_texts import PublishedTexts
from services.state.user_store import Store
from tests.api.builders import an_app, send
from tests.artifact_builders import EchoEngine, write_items

VARIED = TextStatistics("summaries", 480, 404, "A red fox.", 4)
GRAY = TextStatistics("summaries", 633, 50, "A gray tree in flat style.", 240)
ALIKE = TextStatistics("preferences", 500, 3, "Likes trees.", 400)


async def publish(store: Store, *statistics: TextStatistics) -> None:
    await PublishedTexts(store.connection).save_statistics(statistics)


async def health(app: FastAPI) -> dict[str, Any]:
    """The state of the service after a look at its texts."""
    await app.state.deps.caveats.look()
    answer = await send(app, "GET", "/health/ready")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def test_texts_that_vary_are_counted_and_well(store: Store):
    await publish(store, VARIED)

    found = await health(an_app(store))

    assert found["status"] == "ok"
    assert found["components"]["texts"] == {
        "state": "ok",
        "detail": "480 summaries, 404 distinct",
    }


@pytest.mark.parametrize(
    ("published", "cause"), [([GRAY, ALIKE], GRAY), ([GRAY], GRAY), ([VARIED, ALIKE], ALIKE)]
)
async def test_texts_that_do_not_vary_degrade_the_service_by_one_sentence_on_the_cause(
    store: Store, published: list[TextStatistics], cause: TextStatistics
):
    await publish(store, *published)

    found = await health(an_app(store))

    texts = found["components"]["texts"]
    assert (found["status"], texts["state"]) == ("degraded", "degraded")
    assert texts["detail"] == cause.warning()


async def test_newly_published_texts_are_seen_without_a_restart(store: Store):
    app = an_app(store)
    await publish(store, GRAY)
    before = await health(app)
    await publish(store, VARIED)

    after = await health(app)

    assert (before["status"], after["status"]) == ("degraded", "ok")


async def test_a_redis_of_an_older_version_is_well_and_the_data_folder_is_read_instead(
    store: Store, tmp_path: Path
):
    data = str(tmp_path)
    assert "nothing is known" in (await health(an_app(store)))["components"]["texts"]["detail"]
    write_items(data, {f"i{k}": f"title {k}" for k in range(60)})
    await summarize_images.run(data, EchoEngine())

    found = await health(an_app(store, data=data))

    assert found["components"]["texts"]["detail"] == "60 summaries, 60 distinct"


async def test_a_note_that_cannot_be_read_leaves_what_was_known(store: Store):
    app = an_app(store)
    await publish(store, GRAY)
    await health(app)
    await store.connection.call("HSET", keys.TEXTS, "statistics", "{")

    assert (await health(app))["components"]["texts"]["state"] == "degraded"


async def test_their_number_and_the_share_of_the_most_frequent_one_are_metrics(store: Store):
    app = an_app(store)
    await publish(store, TextStatistics("summaries", 100, 2, "a", 75))
    await health(app)

    metrics = (await send(app, "GET", "/metrics")).text

    assert 'msr_texts_published{kind="summaries"} 100.0' in metrics
    assert 'msr_texts_most_frequent_share{kind="summaries"} 0.75' in metrics
    assert 'kind="preferences"' not in metrics


async def test_the_progress_of_a_step_says_how_much_its_texts_vary(store: Store, tmp_path: Path):
    data = str(tmp_path)
    write_items(data, {f"i{k}": f"title {k}" for k in range(60)})
    await summarize_images.run(data, EchoEngine())

    steps = (await send(an_app(store, data=data), "GET", "/progress")).json()["steps"]

    found = {step["artifact"]: step["texts"] for step in steps}
    assert found["items"] is None
    assert (found["summaries"]["num_distinct"], found["summaries"]["warning"]) == (60, "")
