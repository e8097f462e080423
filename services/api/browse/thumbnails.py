"""Images in the sizes that people look at: resized once, then kept in memory up to a bound.

The key contains the item's version, so an entry never becomes stale.
"""

import asyncio
from contextlib import suppress

from cachetools import LRUCache

from services.api.recommend.item_cache import ItemCache
from services.core.errors import NoCover
from services.core.images import thumbnail
from services.core.records import ItemId

MEDIA_TYPE = "image/webp"


class Covers:
    """Holds up to `max_bytes` of resized images; drops the least recently used ones first."""

    def __init__(self, items: ItemCache, max_bytes: int, *, max_at_once: int) -> None:
        """Resizes images of `items`, `max_at_once` at a time, off the event loop."""
        self._items = items
        self._slots = asyncio.Semaphore(max_at_once)
        self._held: LRUCache[tuple[ItemId, str, int], bytes] = LRUCache(max_bytes, len)

    @property
    def num_bytes(self) -> int:
        """What the resized images take now."""
        return int(self._held.currsize)

    async def get(self, item_id: ItemId, version: str, width: int) -> bytes:
        """An image of MEDIA_TYPE; NoCover if the item has none, or was deleted."""
        key = (item_id, version, width)
        if key in self._held:
            return self._held[key]
        held = (await self._items.get({item_id: version})).get(item_id)
        if held is None or held.item.image is None:
            raise NoCover(f"item {item_id!r} has no cover; put it with an image to give it one")
        async with self._slots:
            resized = await asyncio.to_thread(thumbnail, held.item.image, width)
        if held.version == version:  # else the item changed after its version was read
            with suppress(ValueError):  # larger than the whole cache
                self._held[key] = resized
        return resized
