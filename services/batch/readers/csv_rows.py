"""Reads CSV files with quoted titles, line breaks inside cells, a BOM and stray bytes.

It uses Python's csv module, so that a broken row costs only that row and its line is known.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from services.batch.readers.source import Faults
from services.core.artifacts import QuarantinedRow
from services.core.errors import MalformedFile

MAX_CELL_CHARS = 16 * 1024 * 1024  # a longer cell makes csv call the file broken


def read_csv(
    path: Path, faults: Faults, *, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, list[str]]]:
    """(line, cells of the required and then the optional columns) of each row; an optional column
    that the file lacks reads as "".

    Rows with a wrong number of cells or bytes that are not UTF-8 go to `faults`. MalformedFile for
    a missing column or a file that cannot be read.
    """
    csv.field_size_limit(MAX_CELL_CHARS)
    try:
        # surrogateescape lets stray bytes through, so that only their rows are refused.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            require_columns(path, header, required)
            wanted = (*required, *optional)
            positions = [header.index(name) if name in header else None for name in wanted]
            last_line = rows.line_num
            for cells in rows:
                line, last_line = last_line + 1, rows.line_num
                if not cells:
                    continue
                fault = _fault(cells, header)
                if fault:
                    faults.append(QuarantinedRow(f"{path.name}:{line}", fault))
                    continue
                yield line, [cells[k] if k is not None else "" for k in positions]
    except OSError as error:
        raise MalformedFile(f"{path} cannot be read ({error})") from error
    except csv.Error as error:
        raise MalformedFile(
            f"{path} is broken after line {rows.line_num} ({error}); look for a quote that is "
            "opened and never closed"
        ) from error


def csv_columns(path: Path) -> list[str]:
    """The names in the first line of a CSV file."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            return [name.strip() for name in next(csv.reader(file), [])]
    except (OSError, csv.Error) as error:
        raise MalformedFile(f"{path} cannot be read ({error})") from error


def require_columns(path: Path, found: Sequence[str], required: Sequence[str]) -> None:
    """MalformedFile if the file lacks a column."""
    missing = [name for name in required if name not in found]
    if missing:
        raise MalformedFile(
            f"{path} has no column {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, found)) or 'none'}: name the columns {', '.join(required)}"
        )


def _fault(cells: list[str], header: list[str]) -> str:
    if len(cells) != len(header):
        return (
            f"the row has {len(cells)} cells where the header has {len(header)}; "
            "put cells with commas or line breaks in quotes"
        )
    for cell in cells:
        if not cell.isascii() and any("\udc80" <= character <= "\udcff" for character in cell):
            return "the row has bytes that are not UTF-8; save the file as UTF-8"
    return ""
