"""The catalogue that users interact with, and the data folder that `msr serve` wants."""

import asyncio
from pathlib import Path

from benchmarks.faults.digest_engine import DigestEngine
from benchmarks.support.synthetic_catalogue import draw_title, write_plain_catalogue
from services.batch import prepare_catalogue, summarize_images
from services.batch.readers.plain import Plain
from services.core.records import Item, ItemId, UserId

ITEM_IDS = tuple(ItemId(f"item-{number}") for number in range(200))
_NUM_PUBLISHED_USERS = 12


async def prepare(folder: Path) -> Path:
    """Items without images, their titles all different, through the real steps; the data folder.

    The users in it are none of those that interact later.
    """
    data, catalogue = folder / "data", folder / "catalogue"
    items = [Item(item_id, draw_title(item_id)) for item_id in ITEM_IDS]
    users = [UserId(f"published-{number}") for number in range(_NUM_PUBLISHED_USERS)]
    write_plain_catalogue(catalogue, items, users)
    await asyncio.to_thread(prepare_catalogue.run, Plain(catalogue), data=str(data))
    await summarize_images.run(str(data), DigestEngine())
    return data
