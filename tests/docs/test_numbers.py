"""The README shows some of the numbers, never others than the page of all of them; and every quoted
figure is in a kept table.
"""

from pathlib import Path

import pytest

from tests.docs.documents import ROOT
from tests.docs.figures import DOCUMENTS, problems

TABLE = "| a | b |\n|---|---|\n| 16.997 | 34.65 |\n| 5,537 bytes | 0.914 |\n"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "any.md").write_text(TABLE)
    return tmp_path


def test_every_row_of_the_readmes_numbers_stands_on_the_page_of_all_numbers():
    readme, numbers = (
        (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/numbers.md")
    )
    section = readme.partition("\n## Numbers\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]

    assert rows
    assert not [row for row in rows if row not in numbers]


def test_every_quoted_figure_is_in_a_kept_table():
    found = {
        str(path.relative_to(ROOT)): problems(path.read_text(encoding="utf-8"))
        for pattern in DOCUMENTS
        for path in ROOT.glob(pattern)
    }
    assert {"README.md", "docs/numbers.md", "docs/gpu.md"} <= set(found)
    assert not [problem for each in found.values() for problem in each]


@pytest.mark.parametrize("quoted", ["35 times", "91 %", "5.5 kB", "17 s", "16.997 and 34.65"])
def test_a_figure_may_be_rounded_and_have_another_unit(results, quoted):
    assert problems(f"| what | {quoted} <!-- figures: any --> |", results) == []


@pytest.mark.parametrize("quoted", ["36 times", "92 %", "5.6 kB", "16.997 and 34.5"])
def test_another_figure_is_reported_with_its_line(results, quoted):
    [problem] = problems(f"\n| what | {quoted} <!-- figures: any --> |", results)
    assert problem.startswith("2: ")
    assert problem.endswith("is not in the kept table of any")


def test_a_comment_covers_its_paragraph_or_the_block_below_it(results):
    above = "As measured,\n18 seconds <!-- figures: any --> here, 99 elsewhere."
    below = "99\n\n<!-- figures: any -->\n| a |\n|---|\n| 18 |\n\n99"
    assert len(problems(above, results)) == 1
    assert len(problems(below, results)) == 1


def test_a_table_that_is_not_kept_and_a_row_without_a_comment_are_reported(results):
    document = "| a | `msr bench x` | 5 s |\n| b | `msr bench x` | 5 s <!-- figures: x --> |"
    reported = " ".join(problems(document, results))
    assert "there is no kept table x" in reported
    assert "without `<!-- figures: NAME -->`" in reported
