"""A reader from outside the project: one text file, `user likes item` on each line."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from services.batch.readers.interactions import InteractionColumns
from services.batch.readers.source import Faults, SourceItem, Times


class Toy:
    name = "toy"
    times: Times = "order"
    min_user_interactions = 1
    min_item_interactions = 0
    image_hosts: tuple[str, ...] = ()

    def __init__(self, folder: Path, color: str) -> None:
        self.items_table = self.interactions_table = folder / "likes.txt"
        self._color = color

    def interactions(self, faults: Faults) -> InteractionColumns:
        columns = InteractionColumns("likes.txt")
        for line, (user, item) in enumerate(self._pairs(), start=1):
            columns.append(user, item, line, line)
        return columns

    def items(self, faults: Faults) -> Iterator[SourceItem]:
        for item in dict.fromkeys(item for _, item in self._pairs()):
            yield SourceItem(item, item, f"{self._color} {item}")

    def cover_files(self) -> Iterable[tuple[str, Path]]:
        return ()

    def _pairs(self) -> list[list[str]]:
        return [line.split(" likes ") for line in self.items_table.read_text().splitlines()]
