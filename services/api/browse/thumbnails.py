"""Covers as people see them: resized once, then kept in memory up to a bound of bytes.

A cover is named by its item's version, so what is kept is never stale.
"""

import asyncio
from collections import OrderedDict

from services.api.recommend.item_cache import ItemCache
from services.core.errors import NoCover
from services.core.images import thumbnail
from services.core.records import ItemId

MEDIA_TYPE = "image/webp"


class Covers:
    """Resized covers; the least recently used ones leave first."""

    def __init__(self, items: ItemCache, max_bytes: int, *, max_at_once: int) -> None:
        """Images come from `items`; so many at once are resized, off the event loop."""
        self.num_bytes = 0
        self._items = items
        self._max_bytes = max_bytes
        self._slots = asyncio.Semaphore(max_at_once)
        self._held: OrderedDict[tuple[ItemId, str, int], bytes] = OrderedDict()

    async def get(self, item_id: ItemId, version: str, width: int) -> bytes:
        """An image of MEDIA_TYPE; NoCover if the item has none, or is gone by now."""
        key = (item_id, version, width)
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        held = (await self._items.get({item_id: version})).get(item_id)
        if held is None or held.item.image is None:
            raise NoCover(f"item {item_id!r} has no cover; put it with an image to give it one")
        async with self._slots:
            resized = await asyncio.to_thread(thumbnail, held.item.image, width)
        if held.version == version:  # it may have changed meanwhile
            self._keep(key, resized)
        return resized

    def _keep(self, key: tuple[ItemId, str, int], resized: bytes) -> None:
        if key not in self._held:
            self._held[key] = resized
            self.num_bytes += len(resized)
        while self.num_bytes > self._max_bytes:
            _, pushed_out = self._held.popitem(last=False)
            self.num_bytes -= len(pushed_out)
