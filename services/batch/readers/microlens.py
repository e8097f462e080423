"""Reads MicroLens as it is published: pairs, titles and, if downloaded, covers.

    FOLDER/*_pairs.csv      user,item,timestamp (milliseconds)                  preferred, or else
    FOLDER/*_pairs.tsv      user, tab, item ids oldest first between spaces
    FOLDER/*_titles.csv     item,title
    FOLDER/*_covers/        ITEM.jpg (or png, webp, ...); `covers/` is found too; without: text-only

The tsv has an order and no times. Each history then starts at the same fixed moment, with a minute
between interactions: the order within a user is real, times across users mean nothing (`times`).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from services.batch.readers.csv_rows import read_csv
from services.batch.readers.interactions import InteractionColumns, milliseconds
from services.batch.readers.source import Faults, SourceItem, Times, existing_file
from services.core.artifacts import QuarantinedRow
from services.core.errors import MalformedFile, RowRefused

HISTORY_STARTS_MS = 1_577_836_800_000  # 2020-01-01 UTC, before any interaction that comes online
STEP_MS = 60_000

COVER_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


class MicroLens:
    """A MicroLens folder. MalformedFile if pairs or titles are not there."""

    name = "microlens"
    min_user_interactions = 7
    min_item_interactions = 5
    image_hosts: tuple[str, ...] = ()

    def __init__(self, folder: str | Path) -> None:
        """Finds the files; reads none yet."""
        root = Path(folder)
        self.interactions_table = existing_file(
            root,
            "*_pairs.csv",  # with times; the tsv beside it has the same interactions
            "*_pairs.tsv",
            what="pairs file",
            preferred=True,
        )
        self.times: Times = "clock" if self.interactions_table.suffix == ".csv" else "order"
        self.items_table = existing_file(root, "*_titles.csv", what="titles file")
        folders = [path for path in sorted(root.glob("*covers")) if path.is_dir()]
        if len(folders) > 1:
            raise MalformedFile(f"{root} holds several folders of covers; leave one of them there")
        self._covers_folder = folders[0] if folders else None
        self._covers = _find_covers(folders[0]) if folders else {}

    def interactions(self, faults: Faults) -> InteractionColumns:
        """All pairs, in file order."""
        columns = InteractionColumns(self.interactions_table.name)
        if self.interactions_table.suffix == ".csv":
            self._read_pairs_csv(columns, faults)
        else:
            self._read_pairs_tsv(columns, faults)
        return columns

    def items(self, faults: Faults) -> Iterator[SourceItem]:
        """All titles, in file order."""
        rows = read_csv(self.items_table, faults, required=("item", "title"))
        for line, (item_id, title) in rows:
            cover = None
            if self._covers_folder is not None:  # a missing cover is quarantined
                cover = self._covers.get(item_id, self._covers_folder / f"{item_id}.jpg")
            yield SourceItem(f"{self.items_table.name}:{line}", item_id, title, cover_file=cover)

    def cover_files(self) -> Iterable[tuple[str, Path]]:
        """The files in the folder of covers."""
        return self._covers.items()

    def _read_pairs_csv(self, columns: InteractionColumns, faults: Faults) -> None:
        rows = read_csv(self.interactions_table, faults, required=("user", "item", "timestamp"))
        for line, (user_id, item_id, timestamp) in rows:
            try:
                columns.append(user_id, item_id, milliseconds(timestamp), line)
            except RowRefused as fault:
                faults.append(QuarantinedRow(f"{self.interactions_table.name}:{line}", str(fault)))

    def _read_pairs_tsv(self, columns: InteractionColumns, faults: Faults) -> None:
        try:
            with self.interactions_table.open("rb") as file:
                for line, raw in enumerate(file, start=1):
                    try:
                        _append_history(columns, raw, line)
                    except RowRefused as fault:
                        faults.append(
                            QuarantinedRow(f"{self.interactions_table.name}:{line}", str(fault))
                        )
        except OSError as error:
            raise MalformedFile(f"{self.interactions_table} cannot be read ({error})") from error


def _append_history(columns: InteractionColumns, raw: bytes, line: int) -> None:
    if not raw.strip():
        return
    try:
        user_id, tab, items = raw.decode().strip("\r\n").partition("\t")
    except UnicodeDecodeError as error:
        raise RowRefused("the line has bytes that are not UTF-8; save the file so") from error
    if not tab:
        raise RowRefused("the line has no tab between the user and the items; correct it")
    for position, item_id in enumerate(items.split()):
        columns.append(user_id, item_id, HISTORY_STARTS_MS + position * STEP_MS, line)


def _find_covers(folder: Path) -> dict[str, Path]:
    """Item id -> cover; of several with one name the one whose suffix comes first above."""
    found: dict[str, Path] = {}
    for suffix in COVER_SUFFIXES:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() == suffix:
                found.setdefault(path.stem, path)
    return found
