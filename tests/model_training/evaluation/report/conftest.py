"""One whole report, written once: most tests only read it."""

from pathlib import Path

import pytest

from model_training.evaluation.report import write
from tests.model_training.evaluation.report.builders import an_evaluation


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of the report on `an_evaluation()`, name -> path; not to be changed."""
    return write(an_evaluation(), tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def page(report: dict[str, str]) -> str:
    return Path(report["report.html"]).read_text()
