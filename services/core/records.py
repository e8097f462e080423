"""The nouns of the method: users, items, interactions and scored candidates.

Ids are the caller's own strings, kept as they came. They are keys of artifacts and Redis, and
never appear in a prompt.
"""

import hashlib
from dataclasses import dataclass
from typing import NewType

from services.core.ids import MAX_ID_CHARS as MAX_ID_CHARS

UserId = NewType("UserId", str)
ItemId = NewType("ItemId", str)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to recommend: a cleaned title and, if it has one, its prepared image.

    `image` holds the bytes that `images.prepare_image` returned, or None for a text-only item.
    """

    item_id: ItemId
    title: str
    image: bytes | None = None

    @property
    def version(self) -> str:
        """Changes exactly when what the model sees of the item changes (16 hex digits)."""
        return item_version(self.title, self.image)


def item_version(title: str, image: bytes | None) -> str:
    """Digest of what the model sees of an item: 16 hex digits."""
    digest = hashlib.sha256(title.encode())
    digest.update(b"\x00no picture" if image is None else b"\x00" + image)
    return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Interaction:
    """One user acting on one item at one time (milliseconds since the epoch)."""

    user_id: UserId
    item_id: ItemId
    timestamp_ms: int
    event_id: str

    @property
    def order(self) -> tuple[int, str]:
        """Sort key of a history: time, then event id, so the order of arrival does not matter."""
        return (self.timestamp_ms, self.event_id)


@dataclass(frozen=True, slots=True)
class ScoredCandidate:
    """A candidate with the model's answer to "will this user take it next".

    `margin` is the model's log-odds, `probability` its calibrated P(Yes); both give one order.
    """

    item_id: ItemId
    margin: float
    probability: float
