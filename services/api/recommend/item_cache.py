"""Items with their images, kept in the process: an image is read from the store once per version.

A version follows from what the model sees, so an entry never becomes stale.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from cachetools import LRUCache

from services.core.records import ItemId
from services.state.records import ItemRecord

# Bytes of an item besides image and texts: objects, keys, the entry in the mapping.
_OVERHEAD_BYTES = 500

LoadItems = Callable[[list[ItemId]], Awaitable[Mapping[ItemId, ItemRecord]]]
# note(hits, misses)
NoteLookups = Callable[[int, int], None]


class ItemCache:
    """Holds up to `max_bytes` of items; drops the least recently used ones first."""

    def __init__(
        self, load: LoadItems, max_bytes: int, note: NoteLookups = lambda hits, misses: None
    ) -> None:
        """`load` reads items from the store; those it does not have are left out."""
        self._load = load
        self._note = note
        self._items: LRUCache[tuple[ItemId, str], ItemRecord] = LRUCache(max_bytes, _size)

    @property
    def num_bytes(self) -> int:
        """What the items take now."""
        return int(self._items.currsize)

    async def get(self, versions: Mapping[ItemId, str]) -> dict[ItemId, ItemRecord]:
        """The items in these versions. A changed item comes in its new version; a deleted one is
        left out.
        """
        found = {
            item_id: held
            for item_id, version in versions.items()
            if (held := self._items.get((item_id, version))) is not None
        }
        missing = [item_id for item_id in versions if item_id not in found]
        self._note(len(found), len(missing))
        if missing:
            for item_id, loaded in (await self._load(missing)).items():
                found[item_id] = loaded
                with suppress(ValueError):  # larger than the whole cache
                    self._items[item_id, loaded.version] = loaded
        return found


def _size(held: ItemRecord) -> int:
    texts = len(held.item.title) + len(held.summary or "")
    return len(held.item.image or b"") + texts + _OVERHEAD_BYTES
