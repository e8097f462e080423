"""Items with their images, kept in the process: an image is read from the store once per version.

A version follows from what the model sees, so an entry never becomes stale.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from cachetools import LRUCache

from services.core.records import Item, ItemId

# Bytes of an item besides image and title: objects, keys, the entry in the mapping.
_OVERHEAD_BYTES = 500

LoadItems = Callable[[list[ItemId]], Awaitable[Iterable[Item]]]
# note(hits, misses)
NoteLookups = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class VersionedItem:
    """An item and its version, which takes long to compute."""

    version: str
    item: Item


class ItemCache:
    """Holds up to `max_bytes` of items; drops the least recently used ones first."""

    def __init__(
        self, load: LoadItems, max_bytes: int, note: NoteLookups = lambda hits, misses: None
    ) -> None:
        """`load` reads items from the store; those it does not have are left out."""
        self._load = load
        self._note = note
        self._items: LRUCache[tuple[ItemId, str], VersionedItem] = LRUCache(max_bytes, _size)

    @property
    def num_bytes(self) -> int:
        """What the items take now."""
        return int(self._items.currsize)

    async def get(self, versions: Mapping[ItemId, str]) -> dict[ItemId, VersionedItem]:
        """The items in these versions. A changed item comes in its new version; a deleted one is
        left out.
        """
        found: dict[ItemId, VersionedItem] = {}
        missing: list[ItemId] = []
        for item_id, version in versions.items():
            held = self._items.get((item_id, version))
            if held is None:
                missing.append(item_id)
            else:
                found[item_id] = held
        self._note(len(found), len(missing))
        if missing:
            for item in await self._load(missing):
                loaded = found[item.item_id] = VersionedItem(item.version, item)
                with suppress(ValueError):  # larger than the whole cache
                    self._items[item.item_id, item.version] = loaded
        return found


def _size(held: VersionedItem) -> int:
    return len(held.item.image or b"") + len(held.item.title) + _OVERHEAD_BYTES
