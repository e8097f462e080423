"""The README shows some of the numbers, never others than the page of all of them; and every quoted
figure is in a kept table.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.documents import ROOT

TABLE = "| a | b |\n|---|---|\n| 16.997 | 34.65 |\n| 5,537 bytes | 0.914 |\n"


@pytest.fixture(scope="module")
def check_figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_figures", ROOT / ".ci/check_figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_figures"] = module
    spec.loader.exec_module(module)
    return module


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


def test_every_quoted_figure_is_in_a_kept_table(check_figures):
    found = {
        str(path.relative_to(ROOT)): check_figures.problems(path.read_text(encoding="utf-8"))
        for pattern in check_figures.DOCUMENTS
        for path in ROOT.glob(pattern)
    }
    assert {"README.md", "docs/numbers.md", "docs/gpu.md"} <= set(found)
    assert not [problem for problems in found.values() for problem in problems]


@pytest.mark.parametrize("quoted", ["35 times", "91 %", "5.5 kB", "17 s", "16.997 and 34.65"])
def test_a_figure_may_be_rounded_and_have_another_unit(check_figures, results, quoted):
    assert check_figures.problems(f"| what | {quoted} <!-- figures: any --> |", results) == []


@pytest.mark.parametrize("quoted", ["36 times", "92 %", "5.6 kB", "16.997 and 34.5"])
def test_another_figure_is_reported_with_its_line(check_figures, results, quoted):
    [problem] = check_figures.problems(f"\n| what | {quoted} <!-- figures: any --> |", results)
    assert problem.startswith("2: ")
    assert problem.endswith("is not in the kept table of any")


def test_a_comment_covers_its_paragraph_or_the_block_below_it(check_figures, results):
    above = "As measured,\n18 seconds <!-- figures: any --> here, 99 elsewhere."
    below = "99\n\n<!-- figures: any -->\n| a |\n|---|\n| 18 |\n\n99"
    assert len(check_figures.problems(above, results)) == 1
    assert len(check_figures.problems(below, results)) == 1


def test_a_table_that_is_not_kept_and_a_row_without_a_comment_are_reported(check_figures, results):
    document = "| a | `msr bench x` | 5 s |\n| b | `msr bench x` | 5 s <!-- figures: x --> |"
    reported = " ".join(check_figures.problems(document, results))
    assert "there is no kept table x" in reported
    assert "without `<!-- figures: NAME -->`" in reported
