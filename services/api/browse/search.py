"""Finding users and items: by the beginning of an id, by words of a title, or at random.

Walking over all of Redis for every letter that somebody types would cost too much. So a walk is
remembered, and done again only when somebody asks and the last one is older than REST times what it
took: however often is asked, walking fills a tenth of the time at most.
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
from services.state.key_scan import KeyScan, ListedItem, ScanResult
from services.state.records import ItemStatus

REST = 9.0

T = TypeVar("T")
_AFTER_ANY = "\U0010ffff"
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class UsersFound:
    """Ids, and how many there are: that match, of all, and whether all were seen."""

    user_ids: list[UserId]
    num_matching: int
    num_users: int
    complete: bool


@dataclass(frozen=True, slots=True)
class ItemsFound:
    """Ids, and how many there are: that match, by status of all, and whether all were seen."""

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
    """Of one store, as of a moment ago."""

    def __init__(self, key_scan: KeyScan) -> None:
        """Nothing is read before somebody asks."""
        self._key_scan = key_scan
        self._users = _Remembered(key_scan.user_ids)
        self._catalogue = _Remembered(self._read_catalogue)
        self._random = Random()

    async def find_users(self, prefix: str, *, limit: int, at_random: bool) -> UsersFound:
        """Users whose id begins with `prefix`: the first, or any of them."""
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
        """Items by id, from place `offset` on, whose title has words that begin as those of
        `search` do, or whose id begins with it.
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


class _Remembered(Generic[T]):
    """What `look` gave, which takes long."""

    def __init__(
        self, look: Callable[[], Awaitable[T]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look = look
        self._clock = clock
        self._looking = asyncio.Lock()
        self._seen: T | None = None
        self._good_until = 0.0

    async def get(self) -> T:
        async with self._looking:  # who comes meanwhile gets what is found then
            if self._seen is None or self._clock() >= self._good_until:
                started = self._clock()
                self._seen = await self._look()
                ended = self._clock()
                self._good_until = ended + REST * (ended - started)
            return self._seen


def _words(text: str) -> str:
    """The words, each after a space."""
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
