"""Items with their pictures, kept in the process: a picture is read from the store once a version.

A version names what the model sees, so an entry is never stale; it is only pushed out by newer use.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from services.core.records import Item, ItemId

# What an item costs beside its picture and title: objects, keys, the place in the mapping.
_OVERHEAD_BYTES = 500

LoadItems = Callable[[list[ItemId]], Awaitable[Iterable[Item]]]
# note(hits, misses)
NoteLookups = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class VersionedItem:
    """An item beside its version, which is costly to digest again."""

    version: str
    item: Item


class ItemCache:
    """Least recently used items leave first once `max_bytes` are held."""

    def __init__(
        self, load: LoadItems, max_bytes: int, note: NoteLookups = lambda hits, misses: None
    ) -> None:
        """`load` reads items from the store; those it does not have are left out."""
        self._load = load
        self._note = note
        self._max_bytes = max_bytes
        self.num_bytes = 0
        self._items: OrderedDict[tuple[ItemId, str], VersionedItem] = OrderedDict()

    async def get(self, versions: Mapping[ItemId, str]) -> dict[ItemId, VersionedItem]:
        """The items of these versions. One that changed in the meantime comes in its new version;
        one that is gone is left out.
        """
        found: dict[ItemId, VersionedItem] = {}
        missing: list[ItemId] = []
        for item_id, version in versions.items():
            held = self._items.get((item_id, version))
            if held is None:
                missing.append(item_id)
            else:
                self._items.move_to_end((item_id, version))
                found[item_id] = held
        self._note(len(found), len(missing))
        if missing:
            for item in await self._load(missing):
                found[item.item_id] = self._keep(VersionedItem(item.version, item))
        return found

    def _keep(self, loaded: VersionedItem) -> VersionedItem:
        key = (loaded.item.item_id, loaded.version)
        if key not in self._items:  # another request may have loaded it meanwhile
            self._items[key] = loaded
            self.num_bytes += _size(loaded.item)
        while self.num_bytes > self._max_bytes:
            _, pushed_out = self._items.popitem(last=False)
            self.num_bytes -= _size(pushed_out.item)
        return loaded


def _size(item: Item) -> int:
    return len(item.image or b"") + len(item.title) + _OVERHEAD_BYTES
