"""Every link from one document to another, or to a heading, and every path that a document names,
leads somewhere.
"""

import re
from pathlib import Path

import pytest

from tests.docs.documents import DOCUMENTS, ROOT, anchors, prose

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ELSEWHERE = ("http://", "https://", "mailto:")
_PATH = re.compile(
    r"`((?:services|model_training|clients|benchmarks|docker|docs|tests|\.ci)/[\w./-]*)`"
)
MADE_BY_A_COMMAND = ("docker/secrets",)
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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_paths_in_the_text_exist(document: Path):
    named = _PATH.findall(prose(document))

    missing = [path for path in named if not (ROOT / path).exists()]
    assert not [path for path in missing if path not in MADE_BY_A_COMMAND]
