"""The catalogue in Redis: items with their image, their summary and the status of that.

status = await store.items.put_item(item, summary=None)
"""

from collections.abc import Iterable, Sequence

from services.core.prompts import HistoryItem
from services.core.records import Item, ItemId
from services.core.wire.items import ItemStatus
from services.state import keys
from services.state.connection import Call, Command, Connection
from services.state.encoding import ITEM_FIELDS, decode_item, decode_status
from services.state.records import ItemRecord


class ItemStore:
    """All items."""

    def __init__(self, connection: Connection) -> None:
        """Over the store's connection."""
        self._connection = connection

    async def put_item(
        self,
        item: Item,
        *,
        summary: str | None,
        origin: str = "",
        writer: str = "",
        cover: bytes | None = None,
    ) -> ItemStatus:
        """Store one item and return its status; without a summary, a worker will write one.

        An unchanged item (same version) keeps its summary. `origin` as in `Store.ingest`,
        `writer` as in `ItemRecord`.
        """
        status: ItemStatus = "pending" if summary is None else "ready"
        record = ItemRecord(item, item.version, summary, status, writer=writer, cover=cover)
        return (await self.put_items([record], origin=origin))[0]

    async def put_items(
        self, records: Sequence[ItemRecord], *, origin: str = ""
    ) -> list[ItemStatus]:
        """Store items with the given status, all sent at once; returns their statuses in order."""
        calls: list[Call] = []
        for record in records:
            item = record.item
            text = record.summary if record.status == "ready" else record.reason
            names = (keys.item(item.item_id), keys.item_queue(keys.partition_of(item.item_id)))
            arguments = (
                item.item_id,
                record.version,
                item.title,
                int(item.image is not None),
                item.image or b"",
                record.status,
                text or "",
                origin,
                record.writer,
                record.cover or b"",
            )
            calls.append((names, arguments))
        replies = await self._connection.run_all("put_item", calls)
        return [decode_status(reply) for reply in replies]

    async def load_items(
        self, item_ids: Iterable[ItemId], *, images: bool = True
    ) -> dict[ItemId, ItemRecord]:
        """Those of these items that are known, with or without the bytes of their images."""
        wanted = list(dict.fromkeys(item_ids))
        fields = (*ITEM_FIELDS, "image") if images else ITEM_FIELDS
        commands: list[Command] = [("HMGET", keys.item(item_id), *fields) for item_id in wanted]
        rows = await self._connection.call_all(commands)
        return {
            item_id: decode_item(item_id, row)
            for item_id, row in zip(wanted, rows, strict=True)
            if row[0] is not None
        }

    async def cover_size(self, item_id: ItemId) -> int:
        """The bytes of an item's cover for people; 0 if it has none."""
        return int(await self._connection.call("HSTRLEN", keys.item(item_id), "cover"))

    async def load_cover(self, item_id: ItemId, version: str) -> bytes | None:
        """What people are shown of an item; None if it has none, or another version by now."""
        row = await self._connection.call("HMGET", keys.item(item_id), "version", "cover")
        cover: bytes | None = row[1]
        return cover if row[0] == version.encode() else None

    async def load_history_items(self, item_ids: Iterable[ItemId]) -> dict[ItemId, HistoryItem]:
        """These items as preference prompts show them; without unknown and pending ones."""
        records = await self.load_items(item_ids, images=False)
        return {
            item_id: record.in_history
            for item_id, record in records.items()
            if record.status != "pending"
        }

    async def item_ids_known(self, item_ids: Iterable[ItemId]) -> set[ItemId]:
        """Those of these items that the catalogue has."""
        wanted = list(dict.fromkeys(item_ids))
        found = await self._connection.call_all([("EXISTS", keys.item(i)) for i in wanted])
        return {item_id for item_id, exists in zip(wanted, found, strict=True) if exists}

    async def save_summary(
        self, item_id: ItemId, version: str, summary: str, *, writer: str = ""
    ) -> bool:
        """Store an item's summary; False if the item was changed or deleted meanwhile."""
        return await self._settle(item_id, version, "ready", "summary", summary, writer)

    async def fail_item(
        self, item_id: ItemId, version: str, reason: str, *, writer: str = ""
    ) -> bool:
        """Mark an item as failed; False if the item was changed or deleted meanwhile."""
        return await self._settle(item_id, version, "failed", "reason", reason, writer)

    async def delete_item(self, item_id: ItemId) -> bool:
        """Remove an item from the catalogue; False if there was none.

        Preferences already written stay; histories keep the id, and later updates skip it.
        """
        return bool(await self._connection.call("DEL", keys.item(item_id)))

    async def _settle(
        self,
        item_id: ItemId,
        version: str,
        status: ItemStatus,
        field: str,
        text: str,
        writer: str,
    ) -> bool:
        arguments = (version, status, field, text, writer)
        reply = await self._connection.run("settle_item", [keys.item(item_id)], arguments)
        return bool(reply)
