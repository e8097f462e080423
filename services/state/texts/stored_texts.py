"""All texts that Redis holds, some at a time: those that are due, and how much they vary."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from services.core.data_folder.text_statistics import TextCounter, TextStatistics
from services.core.records import ItemId, UserId
from services.state.key_scan import KeyScan
from services.state.records import ItemRecord, UserRecord
from services.state.user_store import Store

ITEMS_A_STEP = 500
# Users are decoded with their whole history, some milliseconds for so many.
USERS_A_STEP = 50
_ALL_KEYS = 2**40


@dataclass(frozen=True, slots=True)
class TextSurvey:
    """What was found: how many items and users there are, and which of them are due.

    Users with the newest interactions come first. `statistics` are those that steps 2 and 3 give.
    """

    due_items: list[ItemId]
    due_users: list[UserId]
    num_items: int
    num_users: int
    statistics: list[TextStatistics]


class StoredTexts:
    """Scans of all items and of all users."""

    def __init__(self, store: Store) -> None:
        """The caller opened the store."""
        self._store = store
        self._scan = KeyScan(store.connection, max_steps=_ALL_KEYS)

    async def survey(
        self, item_is_due: Callable[[ItemRecord], bool], user_is_due: Callable[[UserRecord], bool]
    ) -> TextSurvey:
        """Look at every item and every user once."""
        due_items: list[ItemId] = []
        due_users: list[tuple[int, UserId]] = []
        num_items = num_users = num_failed = 0
        summaries, preferences = TextCounter("summaries"), TextCounter("preferences")
        async for item in self._items():
            num_items += 1
            if item_is_due(item):
                due_items.append(item.item.item_id)
            if item.status == "ready":
                summaries.add(item.summary or "", item.version)
            num_failed += item.status == "failed"
        async for user in self._users():
            num_users += 1
            if user_is_due(user):
                newest_ms = user.history[-1].timestamp_ms if user.history else 0
                due_users.append((newest_ms, user.user_id))
            if user.preference:
                preferences.add(user.preference, "\x00".join(user.item_ids))
        statistics = [summaries.statistics(num_failed), preferences.statistics()]
        return TextSurvey(
            due_items,
            [user_id for _, user_id in sorted(due_users, reverse=True)],
            num_items,
            num_users,
            [each for each in statistics if each.num_texts or each.num_empty],
        )

    async def _items(self) -> AsyncIterator[ItemRecord]:
        """Every item, without its image."""
        ids = [item.item_id for item in (await self._scan.items()).entries]
        for start in range(0, len(ids), ITEMS_A_STEP):
            some = ids[start : start + ITEMS_A_STEP]
            for record in (await self._store.items.load_items(some, images=False)).values():
                yield record

    async def _users(self) -> AsyncIterator[UserRecord]:
        ids = (await self._scan.user_ids()).entries
        for start in range(0, len(ids), USERS_A_STEP):
            some = ids[start : start + USERS_A_STEP]
            for record in (await self._store.load_users(some)).values():
                yield record
