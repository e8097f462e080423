"""Reads a user's own catalogue: two tables, each CSV or Parquet, in one folder.

    FOLDER/items.csv|parquet            item_id, title[, image]
    FOLDER/interactions.csv|parquet     user_id, item_id, timestamp_ms   (or timestamp)

`image` is a path relative to the folder, a web address, or empty. `timestamp_ms` counts
milliseconds since the epoch; `timestamp` holds ISO 8601 text, seconds or milliseconds. The demo
world has this form.
"""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.batch.readers.csv_rows import csv_columns, read_csv, require_columns
from services.batch.readers.interactions import InteractionColumns, milliseconds, moment
from services.batch.readers.source import Faults, SourceItem, Times, existing_file
from services.core.artifacts import QuarantinedRow
from services.core.errors import MalformedFile, RowRefused

# By the bits of a float: from here on it cannot tell a whole number from the next.
_FIRST_INEXACT = {16: 2**11, 32: 2**24, 64: 2**53}

TIME_COLUMNS = {"timestamp_ms": milliseconds, "timestamp": moment}


class Plain:
    """A folder with a plain catalogue. MalformedFile if a table or a column is not there.

    By default every item stays, also without interactions, and every user with a history before a
    target: two interactions.
    """

    name = "plain"
    times: Times = "clock"
    min_user_interactions = 2
    min_item_interactions = 0
    image_hosts: tuple[str, ...] = ()

    def __init__(self, folder: str | Path) -> None:
        """Finds the files; reads their column names at most."""
        self._root = Path(folder)
        self.items_table = existing_file(
            self._root, "items.csv", "items.parquet", what="items table"
        )
        self.interactions_table = existing_file(
            self._root, "interactions.csv", "interactions.parquet", what="interactions table"
        )
        require_columns(self.items_table, _columns(self.items_table), ("item_id", "title"))
        columns = _columns(self.interactions_table)
        times = [name for name in TIME_COLUMNS if name in columns]
        required = ("user_id", "item_id", times[0] if times else "timestamp_ms")
        require_columns(self.interactions_table, columns, required)
        self._interaction_columns = required

    def interactions(self, faults: Faults) -> InteractionColumns:
        """All interactions, in file order."""
        columns = InteractionColumns(self.interactions_table.name)
        read_time = TIME_COLUMNS[self._interaction_columns[2]]
        for line, cells in _rows(
            self.interactions_table, faults, required=self._interaction_columns
        ):
            try:
                columns.append(_text(cells[0]), _text(cells[1]), read_time(cells[2]), line)
            except RowRefused as fault:
                faults.append(QuarantinedRow(f"{self.interactions_table.name}:{line}", str(fault)))
        return columns

    def items(self, faults: Faults) -> Iterator[SourceItem]:
        """All items, in file order. MalformedFile for an image path that leaves the folder."""
        root = self._root.resolve()
        rows = _rows(self.items_table, faults, required=("item_id", "title"), optional=("image",))
        for line, (item_id, title, image) in rows:
            row = f"{self.items_table.name}:{line}"
            try:
                item_id, title, image = _text(item_id), _text(title), _text(image).strip()
            except RowRefused as fault:
                faults.append(QuarantinedRow(row, str(fault)))
                continue
            url = image if "://" in image else None
            file = _resolve(root, image, row) if image and url is None else None
            yield SourceItem(row, item_id, title, file, url)

    def cover_files(self) -> Iterable[tuple[str, Path]]:
        """The local covers that items name."""
        root = self._root.resolve()
        named = {item.cover_file for item in self.items([]) if item.cover_file is not None}
        return [(os.path.relpath(path, root), path) for path in named]


def _columns(path: Path) -> list[str]:
    if path.suffix == ".csv":
        return csv_columns(path)
    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        raise MalformedFile(f"{path} is not a readable Parquet file ({error})") from error


def _rows(
    path: Path, faults: Faults, *, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, list[Any]]]:
    if path.suffix == ".csv":
        yield from read_csv(path, faults, required=required, optional=optional)
        return
    names = _columns(path)
    present = [name for name in (*required, *optional) if name in names]
    row = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(columns=present):
            values = {name: _as_values(batch.column(name)) for name in present}
            blank: list[Any] = [None] * len(batch)
            for cells in zip(
                *(values.get(name, blank) for name in (*required, *optional)), strict=True
            ):
                row += 1
                yield row, list(cells)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise MalformedFile(f"{path} is broken after row {row} ({error})") from error


def _as_values(column: Any) -> list[Any]:
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        # Integers, so that no time zone data is needed; Parquet times are in UTC.
        column = pc.cast(pc.cast(column, pa.timestamp("ms"), safe=False), pa.int64())
    values: list[Any] = column.to_pylist()
    if pa.types.is_floating(column.type):
        first = _FIRST_INEXACT[column.type.bit_width]
        return [_Inexact(v) if v is not None and abs(v) >= first else v for v in values]
    return values


class _Inexact(float):
    """A number whose last digits its column has lost."""


def _text(value: Any) -> str:
    """A cell as the text that its source means: whole numbers as their digits, bytes as UTF-8.

    RowRefused for what cannot be told: bytes of another encoding, and numbers so large that a float
    holds several of them alike. pandas and Spark make floats of integers where one is missing.
    """
    match value:
        case None:
            return ""
        case str():
            return value
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError as error:
                raise RowRefused(
                    "a cell has bytes that are not UTF-8; write the column as text"
                ) from error
        case float() | Decimal() if math.isnan(value):
            return ""
        case _Inexact():
            raise RowRefused(
                f"{value!r} was a whole number before it became a float, which has lost its last "
                "digits; write the column as integers or as text"
            )
        case float() | Decimal() if value == int(value):
            return str(int(value))
        case _:
            return str(value)


def _resolve(root: Path, image: str, row: str) -> Path:
    """The cover's path with links resolved; it must lie inside `root`."""
    try:
        path = (root / image).resolve()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, a circle of links
        return root / image  # opening it fails too, which quarantines the cover
    if not path.is_relative_to(root):
        raise MalformedFile(
            f"{row}: the image path {image[:100]!r} leads outside {root}; put the covers below "
            "the folder of the items table and name them relative to it"
        )
    return path
