"""Lists the ids of all users, and all items without their images.

Redis keeps no such lists. SCAN walks over the keys in small steps, between which other clients are
served, and stops after MAX_STEPS; the result then says that it is incomplete.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.core.records import ItemId, UserId
from services.core.wire.items import ItemStatus
from services.state import keys
from services.state.connection import Command, Connection
from services.state.encoding import ITEM_FIELDS, decode_item, decode_status
from services.state.records import ItemRecord

# Two million keys: about 400,000 users.
KEYS_A_STEP = 1_000
MAX_STEPS = 2_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ScanResult(Generic[T]):
    """The entries found, sorted by id; `complete` if the scan reached the end."""

    entries: list[T]
    complete: bool


@dataclass(frozen=True, slots=True)
class ListedItem:
    """The fields of an item that a search reads."""

    item_id: ItemId
    title: str
    status: ItemStatus


class KeyScan:
    """Scans one Redis (on a Redis Cluster: the node that answers)."""

    def __init__(
        self,
        connection: Connection,
        *,
        keys_a_step: int = KEYS_A_STEP,
        max_steps: int = MAX_STEPS,
    ) -> None:
        """A scan ends after `max_steps`."""
        self._connection = connection
        self._keys_a_step = keys_a_step
        self._max_steps = max_steps

    async def user_ids(self) -> ScanResult[UserId]:
        """The id of every user with a history."""
        found = await self._walk(keys.USER_PATTERN)
        return ScanResult([UserId(each) for each in found.entries], found.complete)

    async def items(self) -> ScanResult[ListedItem]:
        """Every item of the catalogue."""
        found = await self._walk(keys.ITEM_PATTERN)
        listed: list[ListedItem] = []
        for start in range(0, len(found.entries), self._keys_a_step):
            ids = [ItemId(each) for each in found.entries[start : start + self._keys_a_step]]
            rows = await self._connection.call_all(
                [("HMGET", keys.item(item_id), "title", "status") for item_id in ids]
            )
            listed += [
                ListedItem(item_id, (title or b"").decode(), decode_status(status))
                for item_id, (title, status) in zip(ids, rows, strict=True)
                if status is not None  # else it was deleted meanwhile
            ]
        return ScanResult(listed, found.complete)

    async def load_items(self, item_ids: Sequence[ItemId]) -> list[tuple[ItemRecord, bool]]:
        """Those of these items that are known, in this order, each with whether it has an image.

        The bytes of the images are not read.
        """
        wanted = list(dict.fromkeys(item_ids))
        commands: list[Command] = [("HMGET", keys.item(each), *ITEM_FIELDS) for each in wanted]
        commands += [("HEXISTS", keys.item(each), "image") for each in wanted]
        replies = await self._connection.call_all(commands)
        rows, images = replies[: len(wanted)], replies[len(wanted) :]
        return [
            (decode_item(item_id, row), bool(has_image))
            for item_id, row, has_image in zip(wanted, rows, images, strict=True)
            if row[0] is not None
        ]

    async def _walk(self, pattern: str) -> ScanResult[str]:
        """Ids of the matching keys; SCAN may return a key twice."""
        ids: set[str] = set()
        cursor = 0
        for _ in range(self._max_steps):
            reply, found = await self._connection.call(
                "SCAN", cursor, "MATCH", pattern, "COUNT", self._keys_a_step
            )
            ids.update(map(keys.id_in, found))
            cursor = int(reply)
            if cursor == 0:
                return ScanResult(sorted(ids), complete=True)
        return ScanResult(sorted(ids), complete=False)
