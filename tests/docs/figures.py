"""Checks that every figure quoted from a benchmark is in its kept table.

A document names the tables of its figures in a comment that readers do not see:

    <!-- figures: scoring summaries -->

In a table row the comment covers its cell; on a line of its own, the block that follows; elsewhere,
the text before it in its paragraph. Every number there must be in benchmarks/results/NAME.md of one
of the names, rounded as it is quoted (34.65 as 35, 0.914 as 91 %, 5,537 bytes as 5.5 kB). A table
row that quotes an answer of `msr bench NAME` must have a comment.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.documents import ROOT

DOCUMENTS = ("README.md", "docs/*.md", "model_training/demo/weights/README.md")
RESULTS = ROOT / "benchmarks" / "results"
_COMMENT = re.compile(r"<!-- figures: ([a-z0-9 -]+) -->")
_UNITS = {
    **{"%": 0.01, "ms": 1e-3, "kB": 1e3, "MB": 1e6, "GB": 1e9},
    **{"k": 1e3, "M": 1e6, "MiB": 2.0**20, "GiB": 2.0**30},
}
# A number with its unit, but no part of a name or an address: not the 5 of HR@5, p95 or `0.9.1`.
_NUMBER = re.compile(
    r"(?<![\w@.,/])(?P<number>\d[\d,]*(?:\.\d+)?)(?!\w|\.\d|[-/]\w)"
    r"(?: ?(?P<unit>%|(?:ms|[kMG]B|[MG]iB|[kM])\b))?"
)
# Numbers rounded to tens or more are this near, however many zeros they end in.
_LARGEST_ERROR = 0.05


@dataclass(frozen=True)
class Figure:
    """A number as it is written, and its unit."""

    text: str
    unit: float

    @property
    def value(self) -> float:
        """The number without its unit."""
        return float(self.text.replace(",", ""))

    @property
    def error(self) -> float:
        """By how much rounding to the digits shown may have changed it."""
        whole, _, decimals = self.text.replace(",", "").partition(".")
        if decimals:
            return 0.5 * 10.0 ** -len(decimals)
        zeros = len(whole) - len(whole.rstrip("0"))
        return max(0.5, min(0.5 * 10.0**zeros, _LARGEST_ERROR * self.value))

    def comes_from(self, kept: "Figure") -> bool:
        """Whether this is `kept`, rounded. A table often has its unit in the header."""
        error = self.error * (1 + 1e-9)
        kept_values = {kept.value, kept.value * kept.unit}
        return any(
            abs(scale * self.value - value) <= scale * error
            for scale in {1.0, self.unit}
            for value in kept_values
        )


def figures(text: str) -> list[Figure]:
    """All numbers of a text."""
    return [
        Figure(match["number"].rstrip(","), _UNITS.get(match["unit"] or "", 1.0))
        for match in _NUMBER.finditer(text)
    ]


def quotations(document: str) -> Iterator[tuple[int, str, list[str]]]:
    """Line number, text and tables of each comment of a document."""
    lines = document.splitlines()
    for number, line in enumerate(lines):
        for comment in _COMMENT.finditer(line):
            before = line[: comment.start()]
            if line.strip() == comment[0]:
                text = "\n".join(_block(lines[number + 1 :]))
            elif line.startswith("|"):
                text = before.rpartition("|")[2]
            else:
                paragraph = [*reversed(_block(lines[:number][::-1])), before]
                text = _COMMENT.split("\n".join(paragraph))[-1]
            yield number + 1, text, comment[1].split()


def _block(lines: list[str]) -> list[str]:
    """The lines before the first empty one."""
    return lines[: lines.index("")] if "" in lines else lines


def problems(document: str, results: Path = RESULTS) -> list[str]:
    """What is quoted and not kept, each with its line."""
    found = []
    for number, text, names in quotations(document):
        missing = [name for name in names if not (results / f"{name}.md").exists()]
        found += [f"{number}: there is no kept table {name}" for name in missing]
        tables = [(results / f"{name}.md").read_text() for name in names if name not in missing]
        kept = [figure for table in tables for figure in figures(table)]
        quoted = figures(text)
        if not quoted:
            found.append(f"{number}: no figure is quoted here")
        found += [
            f"{number}: {figure.text} is not in the kept table of {', '.join(names)}"
            for figure in quoted
            if not any(figure.comes_from(each) for each in kept)
        ]
    for number, line in enumerate(document.splitlines(), 1):
        cells = line.split("|")
        is_answer = line.startswith("|") and any("`msr bench" in cell for cell in cells[:-2])
        if is_answer and figures(cells[-2]) and not _COMMENT.search(line):
            found.append(f"{number}: a figure of `msr bench` without `<!-- figures: NAME -->`")
    return found
