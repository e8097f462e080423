"""Finding users and items: by the beginning of an id, by words of a title, or at random.

Scanning all of Redis for every letter that somebody types would cost too much. So the result of a
scan is kept, and the next search scans again only after REST times as long as the scan took:
scanning takes at most a tenth of the time, however many searches come.
"""

import asyncio
import re
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Generic, TypeVar

from services.core.records import ItemId, UserId
from services.core.wire.items import ItemStatus
from services.state.key_scan import KeyScan, ListedItem, ScanResult

REST = 9.0

T = TypeVar("T")
_AFTER_ANY = "\U0010ffff"
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class UsersFound:
    """Matching ids, their number, that of all users, and whether the scan was complete."""

    user_ids: list[UserId]
    num_matching: int
    num_users: int
    complete: bool


@dataclass(frozen=True, slots=True)
class ItemsFound:
    """Matching ids, their number, all items by status, and whether the scan was complete."""

    item_ids: list[ItemId]
    num_matching: int
    num_by_status: dict[ItemStatus, int]
    complete: bool


@dataclass(frozen=True, slots=True)
class _Catalogue:
    items: list[ListedItem]
    texts: list[str]
    num_by_status: Counter[ItemStatus]
    complete: bool


class Directory:
    """Users and items of one store, as of the last scan."""

    def __init__(self, key_scan: KeyScan) -> None:
        """Nothing is read before the first search."""
        self._key_scan = key_scan
        self._users = _Rescanned(key_scan.user_ids)
        self._catalogue = _Rescanned(self._read_catalogue)
        self._random = Random()

    async def find_users(self, prefix: str, *, limit: int, at_random: bool) -> UsersFound:
        """Users whose id begins with `prefix`: the first ones, or a random sample."""
        seen: ScanResult[UserId] = await self._users.get()
        first = bisect_left(seen.entries, prefix)
        end = bisect_left(seen.entries, prefix + _AFTER_ANY) if prefix else len(seen.entries)
        places: Sequence[int] = range(first, end)
        if at_random:
            places = sorted(self._random.sample(places, min(limit, len(places))))
        return UsersFound(
            user_ids=[seen.entries[place] for place in places[:limit]],
            num_matching=end - first,
            num_users=len(seen.entries),
            complete=seen.complete,
        )

    async def find_items(
        self, search: str, *, status: ItemStatus | None, offset: int, limit: int
    ) -> ItemsFound:
        """Items in the order of their ids, from position `offset` on. An item matches if each word
        of `search` is the beginning of a word of its title, or if its id begins with `search`.
        """
        seen = await self._catalogue.get()
        matching = await asyncio.to_thread(_matching, seen, search, status)
        return ItemsFound(
            item_ids=matching[offset : offset + limit],
            num_matching=len(matching),
            num_by_status=dict(seen.num_by_status),
            complete=seen.complete,
        )

    async def _read_catalogue(self) -> _Catalogue:
        found = await self._key_scan.items()
        return _Catalogue(
            items=found.entries,
            texts=[_words(item.title) for item in found.entries],
            num_by_status=Counter(item.status for item in found.entries),
            complete=found.complete,
        )


class _Rescanned(Generic[T]):
    """The last result of `scan`, which takes long."""

    def __init__(
        self, scan: Callable[[], Awaitable[T]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._scan = scan
        self._clock = clock
        self._scanning = asyncio.Lock()
        self._seen: T | None = None
        self._good_until = 0.0

    async def get(self) -> T:
        async with self._scanning:  # searches that arrive meanwhile share its result
            if self._seen is None or self._clock() >= self._good_until:
                started = self._clock()
                self._seen = await self._scan()
                ended = self._clock()
                self._good_until = ended + REST * (ended - started)
            return self._seen


def _words(text: str) -> str:
    """The words of a text, each after a space."""
    return "".join(f" {word}" for word in _WORD.findall(text.casefold()))


def _matching(seen: _Catalogue, search: str, status: ItemStatus | None) -> list[ItemId]:
    wanted = [f" {word}" for word in _WORD.findall(search.casefold())]
    return [
        item.item_id
        for item, text in zip(seen.items, seen.texts, strict=True)
        if (status is None or item.status == status)
        and (
            not search
            or item.item_id.startswith(search)
            or (wanted and all(word in text for word in wanted))
        )
    ]
