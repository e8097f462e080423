"""The demo world as a prepared catalogue."""

import asyncio
from pathlib import Path

from model_training.demo.world import (
    IMAGE_SIZE,
    NUM_ITEMS,
    NUM_USERS,
    DemoWorld,
    read_world,
    write_files,
)
from services.batch import build_preferences, prepare_catalogue, summarize_images
from services.batch.readers.plain import Plain
from services.core.splits import Cut
from services.engines.contract import Engine


async def prepare_items(
    data: str, *, num_items: int = NUM_ITEMS, num_users: int = NUM_USERS
) -> DemoWorld:
    """Write the world into the data folder and prepare its catalogue; a finished step is not
    repeated. A folder that holds a world keeps it, whatever its size.
    """
    folder = Path(data) / "demo-world"
    if (folder / "truth.json").exists():  # written last
        world = read_world(folder)
    else:
        world = write_files(folder, num_items=num_items, num_users=num_users)
    await asyncio.to_thread(prepare_catalogue.run, Plain(folder), data=data, image_size=IMAGE_SIZE)
    return world


async def write_texts(data: str, engine: Engine, *, cut: Cut = "last") -> None:
    """Let the engine write all summaries and preferences."""
    await summarize_images.run(data, engine)
    await build_preferences.run(data, engine, cut=cut)
