"""The documents, their fenced blocks, and what a comment before a block says about running it.

    <!-- not run: REASON -->                  the next block is checked and not run
    <!-- no block below is run: REASON -->    none of the rest of the document is
    <!-- runs beside the rest -->             the next block is a server; the others follow once it
                                              listens

Blocks in `sh` and `python` are run, in order, in one empty folder a document.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
RUNNABLE = ("sh", "python")
# What is shown and not typed.
SHOWN = ("text", "json", "yaml", "csv", "mermaid", "promql", "ini", "ts")

How = Literal["run", "beside", "not"]

_FENCE = re.compile(r"^( *)```(\w*)\s*$")
_NOT_RUN = re.compile(r"<!-- not run: \S.* -->")
_NONE_BELOW = re.compile(r"<!-- no block below is run: \S.* -->")
_BESIDE = "<!-- runs beside the rest -->"
_HEADING = re.compile(r"^#+ +(.+?)\s*#*$")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `line` is that of its first fence."""

    document: Path
    line: int
    language: str
    text: str
    how: How

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def read_blocks(document: Path) -> list[Block]:
    """All fenced blocks in order."""
    blocks: list[Block] = []
    default: How = "run"
    how: How | None = None
    lines = enumerate(document.read_text(encoding="utf-8").splitlines(), start=1)
    for number, line in lines:
        if fence := _FENCE.match(line):
            indent, language = fence.groups()
            inside = []
            for _, text in lines:
                if text.strip() == "```":
                    break
                inside.append(text.removeprefix(indent))
            blocks.append(Block(document, number, language, "\n".join(inside), how or default))
            how = None
        elif _NONE_BELOW.fullmatch(line.strip()):
            default = "not"
        elif _NOT_RUN.fullmatch(line.strip()):
            how = "not"
        elif line.strip() == _BESIDE:
            how = "beside"
        elif line.strip():
            how = None
    return blocks


def prose(document: Path) -> str:
    """The text without fenced blocks."""
    kept, inside = [], False
    for line in document.read_text(encoding="utf-8").splitlines():
        if line.strip().startswith("```"):
            inside = not inside
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def anchors(document: Path) -> set[str]:
    """What `#...` may name in it, as GitHub makes it of headings."""
    found = {}
    for line in prose(document).splitlines():
        if heading := _HEADING.match(line):
            words = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
            found[words] = found.get(words, -1) + 1
    return {
        words if number == 0 else f"{words}-{number}"
        for words, count in found.items()
        for number in range(count + 1)
    }
