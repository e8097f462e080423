"""The demo world behind `msr serve`, scored by a vLLM server, with as many users as are needed."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

from benchmarks.faults.digest_engine import DigestEngine
from benchmarks.faults.model_server import NAME
from benchmarks.faults.supervised_process import SupervisedProcess
from model_training.demo.sentences import preference_sentence, updated_preference
from model_training.demo.world import IMAGE_SIZE, draw_taste, write_files
from model_training.finetune import merge_adapter
from model_training.rankers import fit_retrieval
from services.batch import prepare_catalogue, summarize_images
from services.batch.readers.plain import Plain
from services.core.data_folder.text_writers import preference_writer
from services.core.records import Interaction, ItemId, UserId
from services.core.recurrence import PreferenceState
from services.deployment.assemble import DEMO_WEIGHTS
from services.process.announce import LISTENING
from services.state.records import UpdatedPreference
from services.state.user_store import Store

NUM_ITEMS = 60
NUM_WORLD_USERS = 60
_USERS_AT_ONCE = 50


async def prepare(folder: Path) -> tuple[Path, Path]:
    """The data folder and the checkpoint that scores: the demo adapter merged into its base.

    Merged, since LoRA on a CPU is five times slower. Summaries are digests: no score reads them.
    """
    data, checkpoint = folder / "data", folder / NAME
    await asyncio.to_thread(
        merge_adapter.run,
        str(DEMO_WEIGHTS / "base"),
        str(DEMO_WEIGHTS / "adapter"),
        str(checkpoint),
        dtype="float32",
    )
    write_files(folder / "world", num_items=NUM_ITEMS, num_users=NUM_WORLD_USERS)
    await asyncio.to_thread(
        prepare_catalogue.run, Plain(folder / "world"), data=str(data), image_size=IMAGE_SIZE
    )
    await summarize_images.run(str(data), DigestEngine())
    await asyncio.to_thread(fit_retrieval.ensure, str(data))
    return data, checkpoint


def api(
    data: Path,
    redis_url: str,
    models: Sequence[SupervisedProcess],
    folder: Path,
    **environment: str,
) -> SupervisedProcess:
    """`msr serve --no-worker` on these model servers."""
    serve = ["serve", "--no-worker", "--data", str(data), "--port", "0", "--engine", "vllm"]
    urls = [part for model in models for part in ("--url", model.said)]
    return SupervisedProcess(
        "api",
        [sys.executable, "-m", "services.cli", *serve, *urls],
        ready=LISTENING,
        folder=folder,
        environment={"REDIS_URL": redis_url, **environment},
    )


async def put_users(redis_url: str, name: str, number: int) -> None:
    """`name`-0, `name`-1, ...: each with a history and a preference of its own, so that no score of
    one answers for another.
    """
    store = await Store.open(redis_url)
    try:
        users = [f"{name}-{k}" for k in range(number)]
        for start in range(0, number, _USERS_AT_ONCE):
            await asyncio.gather(*(_put(store, each) for each in users[start:][:_USERS_AT_ONCE]))
    finally:
        await store.close()


async def _put(store: Store, user: str) -> None:
    draw = Random(user)
    user_id, item_id = UserId(user), ItemId(f"item-{draw.randrange(NUM_ITEMS):05d}")
    await store.append_history([Interaction(user_id, item_id, 1000, user)])
    record = await store.load_user(user_id)
    assert record is not None
    taste = preference_sentence(updated_preference({}, [draw_taste(draw)]))
    # The number keeps apart who shares a taste, as a written preference would by its wording.
    state = PreferenceState[ItemId]((), (item_id,))
    preference = f"{taste} ({user})"
    await store.save_preference(
        UpdatedPreference(
            record,
            state,
            preference,
            record.version,
            preference_writer(DigestEngine().identity.model).identity,
        )
    )
