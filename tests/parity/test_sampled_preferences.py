"""A sampled preference follows from user and history alone: offline, online, in any order."""

import asyncio
import hashlib
from pathlib import Path
from random import Random

from services.batch import build_preferences, publish, summarize_images
from services.core.artifacts import Artifact
from services.core.prompts import (
    PREFERENCE_LIMITS,
    GenerationLimits,
    Messages,
    Sampling,
    preference_limits,
)
from services.core.records import UserId
from services.state.user_store import Store
from services.worker.main import Worker
from tests.artifact_builders import write_interactions, write_items
from tests.builders import DigestEngine, a_history, put_items, some_ids, the_user
from tests.worker.running import QUICK, nothing_waits, until

PAPER = Sampling(temperature=0.6, top_p=0.9)
HISTORIES = {"u1": some_ids(8), "u2": some_ids(8)[::-1], "u3": some_ids(2)}


class SampledEngine(DigestEngine):
    """Its texts show the decoding that they were asked for."""

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        text = await super().generate(messages, limits)
        return hashlib.sha256(f"{text} {limits}".encode()).hexdigest()[:16]


async def work(store: Store, sampling: Sampling | None = PAPER) -> None:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(Worker(store, SampledEngine(), QUICK, sampling=sampling).run(stop))
        await until(lambda: nothing_waits(store))
        stop.set()


async def preferences_offline(data: str, sampling: Sampling | None) -> dict[str, str]:
    write_items(data, {item_id: f"title of {item_id}" for item_id in some_ids(8)})
    write_interactions(data, HISTORIES)
    await summarize_images.run(data, SampledEngine())
    await build_preferences.run(data, SampledEngine(), cut="none", sampling=sampling)
    rows = Artifact(data, "preferences-whole").read().to_pylist()
    return {row["user_id"]: row["preference"] for row in rows}


async def test_any_order_of_arrival_ends_in_the_offline_text(store: Store, tmp_path: Path):
    expected = await preferences_offline(str(tmp_path), PAPER)
    summaries = Artifact(str(tmp_path), "summaries").read().to_pylist()
    await put_items(store, some_ids(8))
    for row in summaries:
        record = (await store.items.load_items([row["item_id"]]))[row["item_id"]]
        await store.items.save_summary(row["item_id"], record.version, row["summary"])
    rng = Random(7)
    sent = [each for user, ids in HISTORIES.items() for each in a_history(ids, user_id=user)]
    sent += rng.sample(sent, 5)
    rng.shuffle(sent)

    for start in range(0, len(sent), 4):
        await store.ingest(sent[start : start + 4])
        await work(store)

    found = {user_id: (await the_user(store, user_id)).preference for user_id in HISTORIES}
    assert found == expected


async def test_published_sampled_texts_are_continued_by_the_same_sampling_only(
    store: Store, tmp_path: Path
):
    expected = await preferences_offline(str(tmp_path), PAPER)
    await publish.run(str(tmp_path), store)

    await store.request_updates([UserId("u1")], anew=True)
    await work(store)
    assert (await the_user(store, "u1")).preference == expected["u1"]

    manifest = Artifact(str(tmp_path), "preferences-whole").manifest()
    assert manifest.definition["sampling"] == "+t0.6p0.9"
    assert manifest.writer.identity.endswith("+t0.6p0.9")


async def test_greedy_texts_have_the_definition_and_writer_of_before(tmp_path: Path):
    await preferences_offline(str(tmp_path), None)

    manifest = Artifact(str(tmp_path), "preferences-whole").manifest()
    assert "sampling" not in manifest.definition
    assert preference_limits(None, user_id="u", previous="", item_ids=["i"]) == PREFERENCE_LIMITS


def test_the_seed_follows_from_user_block_and_previous_text():
    def seed(user_id: str = "u1", previous: str = "p", item_ids: tuple[str, ...] = ("i1", "i2")):
        return preference_limits(PAPER, user_id=user_id, previous=previous, item_ids=item_ids).seed

    assert seed() == seed()
    assert len({seed(), seed("u2"), seed(previous="q"), seed(item_ids=("i2", "i1"))}) == 4
    assert 0 <= seed() < 2**31
