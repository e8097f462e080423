"""Every link from one document to another, or to a heading, leads somewhere."""

import re
from pathlib import Path

import pytest

from tests.docs.documents import DOCUMENTS, ROOT, anchors, prose

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ELSEWHERE = ("http://", "https://", "mailto:")
MODEL_CARD = ROOT / "model_training" / "demo" / "weights" / "README.md"


@pytest.mark.parametrize("document", [*DOCUMENTS, MODEL_CARD], ids=lambda path: path.name)
def test_links_lead_to_files_and_headings_that_exist(document: Path):
    broken = []
    for target in _LINK.findall(prose(document)):
        if target.startswith(_ELSEWHERE):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)

    assert not broken
