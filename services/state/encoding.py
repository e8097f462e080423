"""Encodes users and items as bytes, and decodes them.

A preference state is compressed JSON: its texts repeat one another, and with 100,000 users the
texts of all blocks would otherwise be most of the memory. Scripts never decode it.
"""

import json
import struct
import zlib
from typing import Any, cast

from services.core.errors import StateError
from services.core.records import MAX_ID_CHARS, Interaction, Item, ItemId, UserId
from services.core.recurrence import PreferenceState, WrittenBlock
from services.core.wire.common import MAX_TIMESTAMP_MS
from services.core.wire.items import ItemStatus
from services.state.records import ItemRecord, UserRecord

ITEM_FIELDS = ("version", "title", "status", "summary", "reason", "writer")

_MARGIN = struct.Struct("<d")
_COMPRESSION_LEVEL = 6
_EMPTY_STATE: dict[str, Any] = {
    "blocks": [],
    "tail": [],
    "preference": "",
    "writer": "",
    "dropped": 0,
}


def fault_of(interaction: Interaction) -> str | None:
    """Why an interaction cannot be stored, whatever the catalogue contains; None if it can."""
    ids = {
        "user id": interaction.user_id,
        "item id": interaction.item_id,
        "event id": interaction.event_id,
    }
    for name, value in ids.items():
        if not 0 < len(value) <= MAX_ID_CHARS:
            return f"the {name} has {len(value)} characters; 1 to {MAX_ID_CHARS} are allowed"
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"the {name} is not valid Unicode"
    if not 0 <= interaction.timestamp_ms <= MAX_TIMESTAMP_MS:
        return "the timestamp is not in milliseconds since 1970"
    return None


# --- users ---------------------------------------------------------------------------------------


def encode_preference(record: UserRecord) -> bytes:
    """The preference state of a record: everything but history and counters."""
    body = {
        "blocks": [
            [list(block.elements), block.preference, written_ms]
            for block, written_ms in zip(record.state.blocks, record.written_ms, strict=True)
        ],
        "tail": list(record.state.tail),
        "preference": record.preference,
        "writer": record.writer,
        "dropped": record.num_dropped_blocks,
    }
    if record.text_writer != record.writer:
        body["text_writer"] = record.text_writer
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return zlib.compress(text.encode(), _COMPRESSION_LEVEL)


def decode_user(user_id: UserId, reply: list[Any]) -> UserRecord:
    """A user from the reply of the script `load_user`."""
    (version, preference_version, revision), entries, state = reply
    history = [
        _decode_interaction(user_id, event_id, value)
        for event_id, value in zip(entries[::2], entries[1::2], strict=True)
    ]
    body = _EMPTY_STATE if state is None else json.loads(zlib.decompress(state))
    blocks = tuple(
        WrittenBlock(tuple(map(ItemId, elements)), text) for elements, text, _ in body["blocks"]
    )
    return UserRecord(
        user_id=user_id,
        history=tuple(sorted(history, key=lambda interaction: interaction.order)),
        state=PreferenceState(blocks, tuple(map(ItemId, body["tail"]))),
        preference=body["preference"],
        version=int(version),
        preference_version=int(preference_version),
        revision=int(revision),
        written_ms=tuple(written_ms for _, _, written_ms in body["blocks"]),
        writer=body["writer"],
        num_dropped_blocks=body["dropped"],
        text_writer=body.get("text_writer", body["writer"]),
    )


def _decode_interaction(user_id: UserId, event_id: bytes, value: bytes) -> Interaction:
    # The script `ingest` writes `timestamp:item`.
    timestamp_ms, _, item_id = value.decode().partition(":")
    return Interaction(user_id, ItemId(item_id), int(timestamp_ms), event_id.decode())


# --- items ---------------------------------------------------------------------------------------


def decode_item(item_id: ItemId, row: list[bytes | None]) -> ItemRecord:
    """An item from its ITEM_FIELDS and, if requested, its image after them."""
    num_texts = len(ITEM_FIELDS)
    texts = [field.decode() if field is not None else None for field in row[:num_texts]]
    version, title, status, summary, reason, writer = texts
    image = row[num_texts] if len(row) > num_texts else None
    item = Item(item_id, title or "", image)
    return ItemRecord(item, version or "", summary, decode_status(status), reason, writer or "")


def decode_status(status: str | bytes | None) -> ItemStatus:
    """The status of an item; StateError for one that this code does not write."""
    text = status.decode() if isinstance(status, bytes) else status
    if text not in ("ready", "pending", "failed"):
        raise StateError(f"Redis holds an item of status {text!r}; it was written by other code")
    return cast(ItemStatus, text)


# --- scores --------------------------------------------------------------------------------------


def encode_margin(margin: float) -> bytes:
    """Eight bytes, exact."""
    return _MARGIN.pack(margin)


def decode_margin(data: bytes) -> float:
    """The margin that `encode_margin` encoded."""
    value: float = _MARGIN.unpack(data)[0]
    return value
