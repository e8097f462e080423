"""Reads Amazon Reviews 2023 as published: one JSON object a line, gzipped or not, as a stream.

    FOLDER/CATEGORY.jsonl[.gz]         reviews: user_id, parent_asin, timestamp (milliseconds), ...
    FOLDER/meta_CATEGORY.jsonl[.gz]    items: parent_asin, title, images, ...

A review of any rating is an interaction: the question is what a user takes next, not what they
praise. The item is the `parent_asin`, as in the dataset's own benchmarks: variants of a product are
one item. The cover is the URL of the MAIN image in the `large` size (about 500 pixels, more than a
model sees).
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from services.batch.readers.interactions import InteractionColumns, milliseconds
from services.batch.readers.source import Faults, SourceItem, Times, existing_file
from services.core.artifacts import QuarantinedRow
from services.core.errors import MalformedFile, RowRefused


class Amazon:
    """One category of Amazon Reviews 2023. MalformedFile if reviews or metadata are not there."""

    name = "amazon"
    times: Times = "clock"
    min_user_interactions = 5
    min_item_interactions = 5
    image_hosts: tuple[str, ...] = ("m.media-amazon.com", "images-na.ssl-images-amazon.com")

    def __init__(self, folder: str | Path, category: str) -> None:
        """Finds the files; reads none yet. `category` is spelled as in the file names."""
        root = Path(folder)
        if not category or not category.replace("_", "").isalnum():
            raise MalformedFile(f"{category!r} is no category; give one such as Video_Games")
        self.interactions_table = existing_file(
            root, f"{category}.jsonl", f"{category}.jsonl.gz", what="reviews file"
        )
        self.items_table = existing_file(
            root, f"meta_{category}.jsonl", f"meta_{category}.jsonl.gz", what="metadata file"
        )

    def interactions(self, faults: Faults) -> InteractionColumns:
        """All reviews, in file order."""
        columns = InteractionColumns(self.interactions_table.name)
        for line, review in _read_json_lines(self.interactions_table, faults):
            try:
                columns.append(
                    _text(review, "user_id"),
                    _text(review, "parent_asin"),
                    milliseconds(review.get("timestamp")),
                    line,
                )
            except RowRefused as fault:
                faults.append(QuarantinedRow(f"{self.interactions_table.name}:{line}", str(fault)))
        return columns

    def items(self, faults: Faults) -> Iterator[SourceItem]:
        """All items of the metadata, in file order."""
        for line, item in _read_json_lines(self.items_table, faults):
            row = f"{self.items_table.name}:{line}"
            try:
                item_id = _text(item, "parent_asin")
            except RowRefused as fault:
                faults.append(QuarantinedRow(row, str(fault)))
                continue
            title = item.get("title")
            yield SourceItem(
                row,
                item_id,
                title if isinstance(title, str) else "",
                cover_url=find_cover_url(item.get("images")),
            )

    def cover_files(self) -> Iterable[tuple[str, Path]]:
        """None: covers are fetched."""
        return ()


def find_cover_url(images: object) -> str | None:
    """The cover among an item's `images`, if any: MAIN before others, `large` before `hi_res`."""
    if not isinstance(images, list):
        return None
    found = [image for image in images if isinstance(image, dict)]
    found.sort(key=lambda image: image.get("variant") != "MAIN")
    for image in found:
        for size in ("large", "hi_res"):
            url = image.get(size)
            if isinstance(url, str) and url:
                return url
    return None


def _text(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise RowRefused(f"the object has no text under {key!r}; correct or delete the line")
    return value


def _read_json_lines(path: Path, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of each line; lines without a complete object go to `faults`."""
    opened: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            progress = tqdm(file, desc=f"read {path.name}", unit=" lines", disable=None)
            for line, raw in enumerate(progress, start=1):
                if raw.isspace():
                    continue
                try:
                    record = json.loads(raw.decode())
                except (ValueError, RecursionError) as error:
                    faults.append(QuarantinedRow(f"{path.name}:{line}", _json_fault(error)))
                    continue
                if isinstance(record, dict):
                    yield line, record
                else:
                    faults.append(QuarantinedRow(f"{path.name}:{line}", "not a JSON object"))
    except (OSError, EOFError, zlib.error) as error:
        raise MalformedFile(
            f"{path} cannot be read to its end ({error}); download it again"
        ) from error


def _json_fault(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "the line has bytes that are not UTF-8; download the file again or delete the line"
    detail = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
    return f"not a whole JSON object ({detail}); download the file again or delete the line"
