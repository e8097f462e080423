"""The README shows some of the numbers, never others than the page of all of them."""

from tests.docs.documents import ROOT


def test_every_row_of_the_readmes_numbers_stands_on_the_page_of_all_numbers():
    readme, numbers = (
        (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/numbers.md")
    )
    section = readme.partition("\n## Numbers\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]

    assert rows
    assert not [row for row in rows if row not in numbers]
