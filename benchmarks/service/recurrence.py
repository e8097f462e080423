"""However interactions arrive, is the online preference the one computed offline?

    msr bench recurrence [--data FOLDER] [--users 200] [--seed 0]

The offline steps write the preferences of the demo world's users (`--data` keeps them, and takes
over what is there). Then the same histories go into an empty Redis while a worker updates
preferences: in batches of random size and of many users, shuffled within each block, with
duplicates. At the end every user's texts, block by block, are compared with the offline ones.
"""

import argparse
import asyncio
import contextlib
import random
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.support import demo_catalogue
from benchmarks.support.runner import markdown
from model_training.demo.world import NUM_ITEMS, NUM_USERS
from services.core.artifacts import Artifact
from services.core.ids import derive_event_id
from services.core.records import Interaction, Item, ItemId, UserId
from services.core.recurrence import BLOCK_SIZE
from services.deployment.assemble import choose_engine
from services.deployment.settings import Settings
from services.engines.contract import Engine
from services.state.embedded_redis.server import EmbeddedRedis
from services.state.records import ItemRecord
from services.state.user_store import Store
from services.worker.main import Worker

QUICK = ("--users", "20", "--world-users", "60", "--world-items", "60")


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """How many users were compared, and how many differ."""
    options = _options(arguments)
    with contextlib.ExitStack() as stack:
        data = options.data or stack.enter_context(tempfile.TemporaryDirectory())
        await demo_catalogue.prepare_items(
            data, num_items=options.world_items, num_users=options.world_users
        )
        choice = choose_engine(data, Settings(), kind="local", model=None, adapter=None)
        engine = await choice.open()
        try:
            await demo_catalogue.write_texts(data, engine, cut="none")
            return await _compare(data, engine, options.users, random.Random(options.seed))
        finally:
            await engine.close()


async def _compare(
    data: str, engine: Engine, num_users: int, draw: random.Random
) -> dict[str, Any]:
    expected = {
        row["user_id"]: row
        for row in Artifact(data, "preferences-whole").read().to_pylist()[:num_users]
    }
    arrivals = list(_arrivals(_interactions(data, set(expected)), draw))
    stop = asyncio.Event()
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedRedis(folder) as url:
            store = await Store.open(url)
            await store.items.put_items(_records(data))
            worker = asyncio.create_task(Worker(store, engine).run(stop))
            for batch in arrivals:
                await store.ingest(batch)
                await asyncio.sleep(draw.choice((0, 0, 0.01)))  # lets the worker in between
            differing = [
                user_id
                for user_id, row in expected.items()
                if not await _agrees(store, UserId(user_id), row)
            ]
            stop.set()
            await worker
            await store.close()
    return {
        "users": len(expected),
        "interactions": sum(map(len, arrivals)),
        "batches": len(arrivals),
        "different": len(differing),
    }


def table(figures: dict[str, Any]) -> str:
    """One row."""
    return markdown(list(figures), [list(figures.values())])


async def _agrees(store: Store, user_id: UserId, row: dict[str, Any]) -> bool:
    """Whether the user's state is the offline one; waits until it covers everything."""
    while True:
        record = await store.load_user(user_id)
        if record is not None and record.preference_version == record.version:
            break
        await asyncio.sleep(0.05)
    return bool(
        [entry.item_id for entry in record.history] == row["item_ids"]
        and [block.preference for block in record.state.blocks] == row["block_preferences"]
        and record.preference == row["preference"]
    )


def _records(data: str) -> list[ItemRecord]:
    rows = Artifact(data, "summaries").read().to_pylist()
    summary_of = {row["item_id"]: row["summary"] for row in rows}
    return [
        ItemRecord(
            Item(ItemId(row["item_id"]), row["title"], row["image"]),
            row["version"],
            summary_of[row["item_id"]],
            "ready",
        )
        for row in Artifact(data, "items").read().to_pylist()
    ]


def _interactions(data: str, users: set[str]) -> list[list[Interaction]]:
    return [
        [
            Interaction(
                UserId(row["user_id"]),
                ItemId(item_id),
                timestamp_ms,
                derive_event_id(UserId(row["user_id"]), ItemId(item_id), timestamp_ms),
            )
            for item_id, timestamp_ms in zip(row["item_ids"], row["timestamps_ms"], strict=True)
        ]
        for row in Artifact(data, "interactions").read().to_pylist()
        if row["user_id"] in users
    ]


def _arrivals(
    histories: Sequence[Sequence[Interaction]], draw: random.Random
) -> Iterator[list[Interaction]]:
    """Batches of several users each; within a user blocks are in order, within a block nothing."""
    waiting = []
    for history in histories:
        queue: list[Interaction] = []
        for start in range(0, len(history), BLOCK_SIZE):
            block = list(history[start : start + BLOCK_SIZE])
            draw.shuffle(block)
            queue += block
        waiting.append(queue)
    while waiting:
        batch: list[Interaction] = []
        for queue in draw.sample(waiting, min(len(waiting), draw.randint(1, 20))):
            taken = [queue.pop(0) for _ in range(min(len(queue), draw.randint(1, 5)))]
            batch += taken
            batch += draw.sample(taken, draw.randint(0, len(taken)))  # delivered twice
        yield batch
        waiting = [queue for queue in waiting if queue]


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench recurrence")
    parser.add_argument("--data", help="where artifacts are kept; else nowhere")
    parser.add_argument("--users", type=int, default=200, help="to compare")
    parser.add_argument("--world-users", type=int, default=NUM_USERS)
    parser.add_argument("--world-items", type=int, default=NUM_ITEMS)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)
