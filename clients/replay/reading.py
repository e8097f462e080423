"""Read the interactions of a file, oldest first, to replay them.

    *.csv   user_id, item_id, timestamp_ms     your own catalogue
    *.csv   user, item, timestamp              MicroLens; timestamps in milliseconds
    *.tsv   user, tab, item ids separated by spaces, oldest first

A tsv has an order but no times. It gets the times that `msr prepare-catalogue` gives it, so that
both produce the same interactions. Sorting holds the whole file in memory, about 200 bytes a row.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from services.core import wire
from services.core.errors import MalformedFile

# The same as in services/batch/readers/microlens.py; a test compares them.
HISTORY_STARTS_MS = 1_577_836_800_000
STEP_MS = 60_000

_COLUMNS = (("user_id", "item_id", "timestamp_ms"), ("user", "item", "timestamp"))


class Row(NamedTuple):
    """One interaction."""

    user_id: str
    item_id: str
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Recording:
    """The rows of a file, oldest first; rows of the same time keep their order in the file."""

    rows: list[Row]
    num_skipped: int


def read_recording(path: Path, *, prefix: str = "") -> Recording:
    """All rows that the API accepts; the others are counted.

    `prefix` is put before each user id, so that a replay has users of its own. MalformedFile if the
    file cannot be read or has no such row.
    """
    rows: list[Row] = []
    num_skipped = 0
    try:
        # Bytes that are not UTF-8 make the id of their row invalid, so only that row is skipped.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            found = _tsv_rows(file) if path.suffix == ".tsv" else _csv_rows(path, file)
            for row in found:
                checked = _checked(row, prefix)
                if checked is not None:
                    rows.append(checked)
                else:
                    num_skipped += 1
    except (OSError, csv.Error) as error:
        raise MalformedFile(f"{path} cannot be read ({error})") from error
    if not rows:
        raise MalformedFile(f"{path} has no interaction to replay, {num_skipped} rows are unusable")
    rows.sort(key=lambda row: row.timestamp_ms)
    return Recording(rows, num_skipped)


def _csv_rows(path: Path, lines: Iterator[str]) -> Iterator[Row | None]:
    cells = csv.reader(lines)
    header = [name.strip() for name in next(cells, [])]
    columns = next((each for each in _COLUMNS if set(each) <= set(header)), None)
    if columns is None:
        raise MalformedFile(
            f"{path} has the columns {', '.join(map(repr, header)) or 'none'}; name them "
            "user_id, item_id and timestamp_ms (milliseconds since the epoch)"
        )
    user, item, timestamp = (header.index(name) for name in columns)
    for row in cells:
        if not row:
            continue
        try:
            yield Row(row[user], row[item], int(float(row[timestamp])))
        except (IndexError, ValueError, OverflowError):
            yield None


def _tsv_rows(lines: Iterator[str]) -> Iterator[Row | None]:
    for line in lines:
        user_id, tab, items = line.strip("\r\n").partition("\t")
        if not tab:
            if line.strip():
                yield None
            continue
        for position, item_id in enumerate(items.split()):
            yield Row(user_id, item_id, HISTORY_STARTS_MS + position * STEP_MS)


def _checked(row: Row | None, prefix: str) -> Row | None:
    """The row with the prefix before its user id; None if the API would reject it."""
    if row is None or not row.user_id or row.timestamp_ms < 0:
        return None
    row = row._replace(user_id=prefix + row.user_id)
    try:
        wire.InteractionIn(**row._asdict())
    except ValidationError:
        return None
    return row
