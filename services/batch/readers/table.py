"""The data sets that `msr prepare-catalogue` can read: one line each.

The command has an option for every line, and imports a reader's module when its option is given.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from services.core.errors import InputError

if TYPE_CHECKING:  # `msr --help` must not load what only a reader needs
    from services.batch.readers.source import Source

_PACKAGE = "services.batch.readers"


@dataclass(frozen=True, slots=True)
class Reader:
    """How a data set is named on the command line, and the class that reads it.

    `source` is the dotted path of a class that implements `source.Source`. It takes the folder,
    and each of `options` (name and help text) as a keyword.
    """

    name: str
    source: str
    help: str
    options: Mapping[str, str] = field(default_factory=dict)

    def open(self, folder: Path, given: Mapping[str, str | None]) -> "Source":
        """The data set in `folder`. InputError without one of the options."""
        for option, text in self.options.items():
            if given.get(option) is None:
                raise InputError(f"--{self.name} needs --{option}: {text}")
        module, _, name = self.source.rpartition(".")
        opened: Source = getattr(import_module(module), name)(
            folder, **{option: given[option] for option in self.options}
        )
        return opened


READERS = [
    Reader(
        "microlens",
        f"{_PACKAGE}.microlens.MicroLens",
        "Folder with *_pairs.tsv|csv, *_titles.csv, covers.",
    ),
    Reader(
        "amazon",
        f"{_PACKAGE}.amazon.Amazon",
        "Folder with Amazon Reviews 2023 files.",
        {"category": "Category of the Amazon files, as in Video_Games.jsonl."},
    ),
    Reader(
        "catalogue",
        f"{_PACKAGE}.plain.Plain",
        "Folder with items and interactions as CSV or Parquet.",
    ),
]
