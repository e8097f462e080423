"""Several evaluations on one page."""

import json
from pathlib import Path
from typing import Any

import pytest

from model_training.evaluation.report import write_collected
from model_training.evaluation.results import Evaluation
from tests.model_training.evaluation.report.builders import an_evaluation

CHEAP = ("random", "sasrec", "fusion")


def small(protocol: str = "chrono-uniform", **options: Any) -> Evaluation:
    return an_evaluation(protocol, models=CHEAP, slices={}, **options)


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    evaluations = [small(), small("paper"), small("full")]
    return write_collected(evaluations, tmp_path_factory.mktemp("collected"))


def test_every_protocol_has_a_column_and_a_report_of_its_own(collected):
    text = Path(collected["report.md"]).read_text()
    assert "| model | chrono-uniform | paper | full |" in text
    assert {"chrono-uniform/report.html", "paper/report.html", "full/report.md"} <= set(collected)


def test_a_model_or_metric_that_a_protocol_lacks_leaves_its_place_empty(tmp_path):
    written = write_collected([small("full"), small()], tmp_path)

    auc = Path(written["report.md"]).read_text().partition("## AUC")[2].partition("##")[0]
    line = next(line for line in auc.splitlines() if line.startswith("| sasrec |"))
    assert line.split("|")[2].strip() == "-"
    assert line.split("|")[3].strip().startswith("0.")


def test_the_collected_json_holds_each_report_by_its_protocol(collected):
    found = json.loads(Path(collected["report.json"]).read_text())
    own = json.loads(Path(collected["paper/report.json"]).read_text())
    assert list(found) == ["chrono-uniform", "full", "paper"]
    assert found["paper"] == own


def test_every_link_of_the_page_leads_to_a_file_that_was_written(tmp_path):
    written = write_collected([small(), small(ablate="cover")], tmp_path)
    page = Path(written["report.html"]).read_text()

    links = [part.partition('"')[0] for part in page.split('<a href="')[1:]]
    assert set(links) == {"chrono-uniform/report.html", "chrono-uniform-ablate-cover/report.html"}
    assert all((tmp_path / link).is_file() for link in links)
    assert "http" not in page


def test_the_same_evaluations_give_the_same_page(collected, tmp_path):
    again = write_collected([small(), small("paper"), small("full")], tmp_path)

    assert again.keys() == collected.keys()
    for name, path in collected.items():
        assert Path(path).read_bytes() == Path(again[name]).read_bytes()


@pytest.mark.parametrize("evaluations", [[], [small("paper"), small("paper")]])
def test_nothing_or_the_same_twice_is_not_collected(tmp_path, evaluations):
    with pytest.raises(ValueError, match="that all differ"):
        write_collected(evaluations, tmp_path)
