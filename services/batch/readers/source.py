"""The interface of a data-set reader: it gives the items and interactions of a data set on disk.

A reader only parses. Rows that it cannot parse go to `faults` with their file and line; a file that
it cannot read raises MalformedFile. `filtering.py` decides what is kept. `table.py` lists the
readers.
"""

import hashlib
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from services.batch.readers.interactions import InteractionColumns
from services.core.artifacts import QuarantinedRow
from services.core.errors import MalformedFile

Faults = list[QuarantinedRow]

# What timestamps mean: `clock`, moments that can be compared across users; `order`, only the order
# within one user's history.
Times = Literal["clock", "order"]


@dataclass(frozen=True, slots=True)
class SourceItem:
    """One item as its file has it: `row` names file and line; the title is not cleaned yet.

    At most one of `cover_file` (which may not exist) and `cover_url` is set; without them the item
    is text-only.
    """

    row: str
    item_id: str
    title: str
    cover_file: Path | None = None
    cover_url: str | None = None


class Source(Protocol):
    """A data set on disk. Reading it twice gives the same rows."""

    name: str
    times: Times
    min_user_interactions: int
    min_item_interactions: int
    image_hosts: tuple[str, ...]
    interactions_table: Path
    items_table: Path

    def interactions(self, faults: Faults) -> InteractionColumns:
        """All interactions, in file order."""
        ...

    def items(self, faults: Faults) -> Iterator[SourceItem]:
        """All items, in file order, duplicates included."""
        ...

    def cover_files(self) -> Iterable[tuple[str, Path]]:
        """Local images as (name within the source, path), each once."""
        ...


def digest_source(source: Source) -> dict[str, str]:
    """File names and digests of their contents: they determine the prepared artifacts."""
    tables = (source.interactions_table, source.items_table)
    digests = {path.name: _digest_file(path) for path in tables}
    covers = hashlib.sha256()
    num_covers = 0
    for name, path in sorted(source.cover_files()):
        num_covers += 1
        covers.update(f"{name}\x00{_digest_cover(path)}\x00".encode(errors="surrogatepass"))
    if num_covers:
        digests["covers"] = covers.hexdigest()
    return digests


def existing_file(folder: Path, *patterns: str, what: str, preferred: bool = False) -> Path:
    """The one file in `folder` that the glob patterns find, or MalformedFile. With `preferred`, the
    first pattern that finds one.
    """
    for tried in ([each] for each in patterns) if preferred else [patterns]:
        found = sorted(path for pattern in tried for path in folder.glob(pattern))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise MalformedFile(f"{folder} holds several {what} ({names}); leave one of them there")
        if found:
            return found[0]
    if not folder.is_dir():
        raise MalformedFile(f"{folder} is not a folder; name the folder that holds {patterns[0]}")
    raise MalformedFile(f"{folder} holds no {what}; expected {' or '.join(patterns)} in it")


def is_regular_file(path: Path) -> bool:
    """Whether this is a regular file that can be read; a pipe or a device is not."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False


def _digest_cover(path: Path) -> str:
    if not is_regular_file(path):
        return "absent"
    try:
        return _digest_file(path)
    except MalformedFile:
        return "unreadable"


def _digest_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MalformedFile(f"{path} cannot be read ({error}); check its permissions") from error
