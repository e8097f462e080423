"""Images in the sizes that people look at: resized once, then kept in memory up to a bound.

They show the cover as the shop brought it. Items that an earlier version stored have only the image
that the model sees; its letterbox is cut off. The key contains the item's version, so an entry
never becomes stale.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from cachetools import LRUCache

from services.api.recommend.item_cache import ItemCache
from services.core.errors import NoCover
from services.core.images import thumbnail
from services.core.records import ItemId

MEDIA_TYPE = "image/webp"

# The cover of an item in this version; None if it has none, or another version by now.
LoadCover = Callable[[ItemId, str], Awaitable[bytes | None]]


class Covers:
    """Holds up to `max_bytes` of resized images; drops the least recently used ones first."""

    def __init__(
        self, load: LoadCover, items: ItemCache, max_bytes: int, *, max_at_once: int
    ) -> None:
        """Resizes covers, or else the images of `items`, `max_at_once` at a time, off the event
        loop.
        """
        self._load = load
        self._items = items
        self._slots = asyncio.Semaphore(max_at_once)
        self._held: LRUCache[tuple[ItemId, str, int, int], bytes] = LRUCache(max_bytes, len)

    @property
    def num_bytes(self) -> int:
        """What the resized images take now."""
        return int(self._held.currsize)

    async def get(self, item_id: ItemId, version: str, width: int, *, cover_size: int = 0) -> bytes:
        """An image of MEDIA_TYPE; NoCover if the item has none, or was deleted.

        `cover_size`: the bytes of its cover, 0 if an earlier version stored none: one that comes
        later is shown.
        """
        key = (item_id, version, width, cover_size)
        if key in self._held:
            return self._held[key]
        image = await self._load(item_id, version)
        is_current, is_prepared = image is not None, image is None
        if image is None:
            held = (await self._items.get({item_id: version})).get(item_id)
            if held is None or held.item.image is None:
                raise NoCover(f"item {item_id!r} has no cover; put it with an image to give it one")
            image, is_current = held.item.image, held.version == version
        async with self._slots:
            resized = await asyncio.to_thread(thumbnail, image, width, is_prepared=is_prepared)
        if is_current:  # else the item changed after its version was read
            with suppress(ValueError):  # larger than the whole cache
                self._held[key] = resized
        return resized
