"""Where reports lie."""

from pathlib import Path

import pytest

from model_training.evaluation import evaluate
from model_training.evaluation.report import write_report


@pytest.mark.parametrize(("scheme", "protocol"), [("", "chrono-uniform"), ("file://", "full")])
async def test_a_report_lies_in_the_data_folder_under_its_protocol(
    data: str, scheme: str, protocol: str
):
    found = await evaluate.run(data, None, protocol=protocol, models=["random", "popularity"])
    page = write_report(scheme + data, found)

    assert page == f"{data}/reports/{protocol}/report.html"
    written = {path.name for path in Path(page).parent.iterdir()}
    assert written == {"report.html", "report.json", "report.md", "plots"}
