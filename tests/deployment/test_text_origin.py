"""Whether a server may start on the texts that it would serve."""

import asyncio
from pathlib import Path

import pytest

from services.batch import build_preferences, publish, summarize_images
from services.core.artifacts import Artifact
from services.core.data_folder.text_writers import TextWriters
from services.core.errors import ArtifactMismatch
from services.core.prompts import Sampling
from services.deployment.text_origin import texts_to_keep
from services.state.texts.text_origins import Rewriting, TextOrigins
from services.state.user_store import Store
from tests.artifact_builders import write_interactions, write_items
from tests.builders import DigestEngine

OLD, NEW = TextWriters.of("old"), TextWriters.of("new")


@pytest.fixture
async def data(tmp_path: Path) -> str:
    """A data folder of the model `old`."""
    write_items(str(tmp_path), {"i1": "one", "i2": "two"})
    write_interactions(str(tmp_path), {"u1": ["i1", "i2"]})
    await summarize_images.run(str(tmp_path), DigestEngine(model="old"))
    await build_preferences.run(str(tmp_path), DigestEngine(model="old"), cut="none")
    return str(tmp_path)


async def test_the_model_that_wrote_the_texts_starts_and_puts_them_back(store: Store, data: str):
    assert not await texts_to_keep(data, store, OLD, accept=False)


async def test_another_model_is_refused_and_told_what_to_do(store: Store, data: str):
    with pytest.raises(ArtifactMismatch, match=r"by old.*msr summarize-images.*--accept-other"):
        await texts_to_keep(data, store, NEW, accept=False)


async def test_another_sampling_is_refused_as_well(store: Store, data: str):
    sampled = TextWriters.of("old", sampling=Sampling(0.6, 0.9))

    with pytest.raises(ArtifactMismatch, match="preferences are by old, written by another prompt"):
        await texts_to_keep(data, store, sampled, accept=False)


async def test_accepted_texts_of_another_model_are_served(store: Store, data: str):
    assert await texts_to_keep(data, store, NEW, accept=True)


async def test_texts_that_were_written_anew_are_the_new_models(store: Store, data: str):
    await publish.run(data, store)
    origins = TextOrigins(store.connection)
    await origins.finish_rewriting(await origins.load(), NEW)

    assert await texts_to_keep(data, store, NEW, accept=False)


async def test_while_they_are_being_written_anew_the_option_is_needed(store: Store, data: str):
    await publish.run(data, store)
    await TextOrigins(store.connection).save_rewriting(Rewriting(NEW))

    with pytest.raises(ArtifactMismatch):
        await texts_to_keep(data, store, NEW, accept=False)
    assert await texts_to_keep(data, store, NEW, accept=True)


async def test_other_artifacts_than_those_in_redis_decide_by_themselves(store: Store, data: str):
    await publish.run(data, store)
    origins = TextOrigins(store.connection)
    await origins.finish_rewriting(await origins.load(), NEW)
    await asyncio.to_thread(write_interactions, data, {"u1": ["i2", "i1"]})
    await build_preferences.run(data, DigestEngine(model="old"), cut="none")

    with pytest.raises(ArtifactMismatch):
        await texts_to_keep(data, store, NEW, accept=False)


async def test_texts_that_no_manifest_names_the_model_of_are_refused(store: Store, data: str):
    path = Path(Artifact(data, "summaries").location) / "manifest.json"
    model = Artifact(data, "summaries").manifest().model
    path.write_text(path.read_text().replace(f'"model": "{model}"', '"model": ""'))

    with pytest.raises(ArtifactMismatch, match="by a model that is not known"):
        await texts_to_keep(data, store, OLD, accept=False)
