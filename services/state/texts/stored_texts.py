"""All texts that Redis holds, some at a time: to find those that are due, and to count them."""

from collections.abc import AsyncIterator

from services.core.data_folder.text_statistics import TextCounter, TextStatistics
from services.state.key_scan import KeyScan
from services.state.records import ItemRecord, UserRecord
from services.state.user_store import Store

ITEMS_A_STEP = 500
# Users are decoded with their whole history, some milliseconds for so many.
USERS_A_STEP = 50
_ALL_KEYS = 2**40


class StoredTexts:
    """Scans of all items and of all users."""

    def __init__(self, store: Store) -> None:
        """The caller opened the store."""
        self._store = store
        self._scan = KeyScan(store.connection, max_steps=_ALL_KEYS)

    async def items(self) -> AsyncIterator[ItemRecord]:
        """Every item, without its image."""
        ids = [item.item_id for item in (await self._scan.items()).entries]
        for start in range(0, len(ids), ITEMS_A_STEP):
            some = ids[start : start + ITEMS_A_STEP]
            for record in (await self._store.items.load_items(some, images=False)).values():
                yield record

    async def users(self) -> AsyncIterator[UserRecord]:
        """Every user."""
        ids = (await self._scan.user_ids()).entries
        for start in range(0, len(ids), USERS_A_STEP):
            for record in (
                await self._store.load_users(ids[start : start + USERS_A_STEP])
            ).values():
                yield record

    async def statistics(self) -> list[TextStatistics]:
        """How much summaries and preferences vary, as steps 2 and 3 count it."""
        summaries, num_failed = TextCounter("summaries"), 0
        async for item in self.items():
            if item.status == "ready":
                summaries.add(item.summary or "", item.version)
            num_failed += item.status == "failed"
        preferences = TextCounter("preferences")
        async for user in self.users():
            if user.preference:
                preferences.add(user.preference, "\x00".join(user.item_ids))
        found = [summaries.statistics(num_failed), preferences.statistics()]
        return [each for each in found if each.num_texts or each.num_empty]
