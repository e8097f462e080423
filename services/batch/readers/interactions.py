"""Interactions in columns, and operations on them: first occurrences, k-core, histories.

A data set has up to tens of millions of interactions. So users and items are codes, numbered in
order of first appearance, and everything here is numpy over columns.
"""

import contextlib
import math
import re
from array import array
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from services.core.errors import RowRefused
from services.core.ids import ID_PATTERN, MAX_ID_CHARS, derive_event_id

Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]

END_OF_TIME_MS = 4_102_444_800_000  # 2100-01-01; later times are not plausible

# Numbers from here on are milliseconds (1973 or later): as seconds they would mean the year 5138.
_FIRST_MILLISECONDS = 1e11


_ID = re.compile(ID_PATTERN)


class InteractionColumns:
    """Interactions in file order: codes of user and item, time, and line in `file`."""

    def __init__(self, file: str) -> None:
        """`file` names the rows in messages."""
        self.file = file
        self.user_ids: list[str] = []
        self.item_ids: list[str] = []
        self._user_codes: dict[str, int] = {}
        self._item_codes: dict[str, int] = {}
        self._users, self._items = array("i"), array("i")
        self._times, self._lines = array("q"), array("q")

    def __len__(self) -> int:
        return len(self._users)

    def append(self, user_id: str, item_id: str, timestamp_ms: int, line: int) -> None:
        """Add one interaction; RowRefused if an id or the time cannot be used."""
        if not 0 <= timestamp_ms < END_OF_TIME_MS:
            raise RowRefused(
                f"the timestamp {str(timestamp_ms)[:40]} ms lies outside 1970 to 2099; correct it"
            )
        user = self._user_codes.get(user_id)
        if user is None:
            user = _add(checked_id(user_id, "user"), self._user_codes, self.user_ids)
        item = self._item_codes.get(item_id)
        if item is None:
            item = _add(checked_id(item_id, "item"), self._item_codes, self.item_ids)
        self._users.append(user)
        self._items.append(item)
        self._times.append(timestamp_ms)
        self._lines.append(line)

    def item_code(self, item_id: str) -> int | None:
        """The code of an item, None if no interaction names it."""
        return self._item_codes.get(item_id)

    def add_item(self, item_id: str) -> int:
        """The code of an item, also of one without interactions."""
        code = self._item_codes.get(item_id)
        return _add(item_id, self._item_codes, self.item_ids) if code is None else code

    @property
    def users(self) -> Codes:
        """User codes, in file order."""
        return np.asarray(self._users, dtype=np.int64)

    @property
    def items(self) -> Codes:
        """Item codes, in file order."""
        return np.asarray(self._items, dtype=np.int64)

    @property
    def timestamps_ms(self) -> Codes:
        """Milliseconds since the epoch, in file order."""
        return np.asarray(self._times, dtype=np.int64)

    @property
    def lines(self) -> Codes:
        """Lines (or row numbers) in `file`, from 1."""
        return np.asarray(self._lines, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Histories:
    """Interactions grouped by user, oldest first: user u owns [offsets[u], offsets[u + 1])."""

    user_ids: list[str]
    offsets: Codes
    items: Codes
    timestamps_ms: Codes


def checked_id(value: str, what: str) -> str:
    """The id as it came; RowRefused unless it is 1 to MAX_ID_CHARS printable characters."""
    if not value.strip():
        raise RowRefused(f"the {what} id is missing or empty; fill it in")
    if len(value) > MAX_ID_CHARS:
        raise RowRefused(f"the {what} id has {len(value)} characters, more than {MAX_ID_CHARS}")
    if not _ID.match(value):
        raise RowRefused(f"the {what} id has control characters; remove them")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowRefused(f"the {what} id is not valid Unicode; save the file as UTF-8") from error
    return value


def milliseconds(value: object) -> int:
    """A number or its digits as whole milliseconds; RowRefused otherwise."""
    return int(_number(value))


def moment(value: object) -> int:
    """Milliseconds of a column that is only called `timestamp`: ISO 8601 text (UTC if it names no
    zone), or a number of seconds or milliseconds since the epoch, distinguished by its size.
    """
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value.strip())
        except ValueError:
            pass  # then it must be a number
        else:
            if "-" in value[1:] or ":" in value:  # 20230101 alone is a number, not a date
                zoned = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
                return round(zoned.timestamp() * 1000)
    number = _number(value)
    return int(number if abs(number) >= _FIRST_MILLISECONDS else number * 1000)


def first_occurrences(users: Codes, items: Codes, timestamps_ms: Codes) -> Mask:
    """A mask of the earliest interaction of every user-item pair (of equal times the first row).

    The task is which new item a user takes next, so a repeat is no target; and a second review of a
    product is seldom a second purchase.
    """
    order = np.lexsort((timestamps_ms, items, users))  # stable: file order among equals
    is_first = np.ones(len(order), dtype=np.bool_)
    u, i = users[order], items[order]
    is_first[1:] = (u[1:] != u[:-1]) | (i[1:] != i[:-1])
    kept = np.zeros(len(order), dtype=np.bool_)
    kept[order[is_first]] = True
    return kept


def k_core(users: Codes, items: Codes, *, min_user: int, min_item: int) -> Mask:
    """The largest set of interactions in which every user has at least `min_user` of them and every
    item at least `min_item`. It is unique, whatever is removed first.
    """
    kept = np.arange(len(users))
    while len(kept):
        u, i = users[kept], items[kept]
        enough = (np.bincount(u)[u] >= min_user) & (np.bincount(i)[i] >= min_item)
        if enough.all():
            break
        kept = kept[enough]
    mask = np.zeros(len(users), dtype=np.bool_)
    mask[kept] = True
    return mask


def build_histories(
    columns: InteractionColumns, users: Codes, items: Codes, timestamps_ms: Codes
) -> Histories:
    """Group interactions by user (users in order of their codes) and sort each history by time, and
    by event id where times are equal, as the online state does.
    """
    order = np.lexsort((timestamps_ms, users))
    u, i, t = users[order], items[order], timestamps_ms[order]
    # Rows that have the same user and time as the next one, and the runs of them.
    tied = np.flatnonzero((u[1:] == u[:-1]) & (t[1:] == t[:-1]))
    runs = np.split(tied, np.flatnonzero(np.diff(tied) != 1) + 1) if len(tied) else []
    for run in runs:
        rows = slice(run[0], run[-1] + 2)
        user_id, time = columns.user_ids[u[run[0]]], int(t[run[0]])
        event_ids = [derive_event_id(user_id, columns.item_ids[k], time) for k in i[rows]]
        i[rows] = i[rows][np.argsort(event_ids)]
    codes, starts = np.unique(u, return_index=True)
    offsets = np.append(starts, len(u)).astype(np.int64)
    return Histories([columns.user_ids[code] for code in codes], offsets, i, t)


def _add(name: str, codes: dict[str, int], names: list[str]) -> int:
    codes[name] = code = len(names)
    names.append(name)
    return code


def _number(value: object) -> float | int:
    if isinstance(value, Decimal):
        return _number(float(value))
    if isinstance(value, str):
        for parse in (int, float):
            with contextlib.suppress(ValueError):
                return _number(parse(value))
    # `abs(...) < inf` is false for NaN and true for integers of any size.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        raise RowRefused("the timestamp is missing or not a number; correct it")
    return value
