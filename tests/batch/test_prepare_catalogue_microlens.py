"""The real MicroLens-50k, where it lies at hand: MSR_MICROLENS, or ../shared/data/microlens."""

import os
from pathlib import Path

import pytest

from services.batch.prepare_catalogue import run
from services.batch.readers.microlens import MicroLens

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "microlens"
FOLDER = Path(os.environ.get("MSR_MICROLENS", SHARED))


@pytest.mark.skipif(not FOLDER.is_dir(), reason="research data, not part of the repository")
def test_the_7_5_core_of_microlens_50k_has_the_known_size(tmp_path: Path):
    counts = run(MicroLens(FOLDER), data=str(tmp_path))

    assert counts["users"] == 14_323
    assert counts["items"] == 9_535
    assert counts["interactions"] == 145_835
    assert counts["quarantined"] == 0
