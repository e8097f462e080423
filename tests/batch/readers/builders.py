"""Small data sets on disk, as each source publishes them."""

import csv
import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

DAY_MS = 86_400_000


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def a_plain_catalogue(
    folder: Path,
    items: Sequence[Sequence[object]] = (("a", "Apple", ""), ("b", "Bear", ""), ("c", "Car", "")),
    interactions: Sequence[Sequence[object]] = (("u", "a", 1), ("u", "b", 2), ("u", "c", 3)),
) -> Path:
    folder.mkdir(exist_ok=True)
    write_csv(folder / "items.csv", ("item_id", "title", "image"), items)
    write_csv(folder / "interactions.csv", ("user_id", "item_id", "timestamp_ms"), interactions)
    return folder


def many_items(num_items: int, image: str = "covers/{}.png") -> list[tuple[str, str, str]]:
    return [(f"i{k}", f"Item {k}", image.format(k)) for k in range(num_items)]


def a_microlens_folder(
    folder: Path,
    pairs: str = "u1\ta b c\r\nu2\tc a\r\n",
    titles: Sequence[tuple[str, str]] = (("a", "Apple"), ("b", "Bear"), ("c", "Car")),
) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "Tiny_pairs.tsv").write_bytes(pairs.encode())
    write_csv(folder / "Tiny_titles.csv", ("item", "title"), titles)
    return folder


def a_review(user_id: str = "u", item_id: str = "a", day: int = 20_000, **changes: Any) -> Any:
    review = {"rating": 5.0, "asin": "x", "parent_asin": item_id, "user_id": user_id}
    return review | {"timestamp": day * DAY_MS} | changes


def a_product(item_id: str = "a", title: Any = "Apple", images: Any = ()) -> dict[str, Any]:
    return {"main_category": "Toys", "title": title, "images": images, "parent_asin": item_id}


def an_amazon_folder(
    folder: Path, reviews: Sequence[Any], products: Sequence[Any], *, zipped: bool = False
) -> Path:
    """Objects are written as JSON; bytes as they are, one line each."""
    folder.mkdir(exist_ok=True)
    for name, rows in (("Toys.jsonl", reviews), ("meta_Toys.jsonl", products)):
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        content = b"\n".join(lines) + b"\n"
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder
