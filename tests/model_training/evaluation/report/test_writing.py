"""Which files a report has, and what is in them."""

import hashlib
import json
from pathlib import Path

import matplotlib as mpl
import pytest
from PIL import Image

from model_training.evaluation.report import write
from tests.model_training.evaluation.report.builders import STRENGTHS, a_slice, an_evaluation

CHEAP = tuple(name for name in STRENGTHS if not name.startswith("mllm"))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_report_has_numbers_text_page_and_one_image_a_plot(report):
    plots = ("hit-rates", "roc", "calibration-mllm", "calibration-mllm-fusion")
    slices = ("slice-1-history-length", "slice-2-cold-items")
    names = {"report.json", "report.md", "report.html"}
    assert set(report) == names | {f"plots/{name}.png" for name in plots + slices}
    assert set(digests(Path(report["report.md"]).parent)) == set(report)


def test_the_same_evaluation_gives_the_same_bytes_however_long_it_took(report, tmp_path):
    write(an_evaluation(facts={"seconds": 99.1}), tmp_path)

    assert digests(tmp_path) == digests(Path(report["report.md"]).parent)


def test_settings_of_the_process_neither_change_a_plot_nor_are_changed_by_it(report, tmp_path):
    with mpl.rc_context({"font.size": 30, "axes.grid": False}):
        write(an_evaluation(), tmp_path)
        assert mpl.rcParams["font.size"] == 30

    assert digests(tmp_path) == digests(Path(report["report.md"]).parent)


def test_plots_that_a_newer_report_does_not_have_are_removed(tmp_path):
    write(an_evaluation(models=("random", "mllm"), slices={}), tmp_path)
    write(an_evaluation(models=("random",), slices={}), tmp_path)

    assert not (tmp_path / "plots" / "calibration-mllm.png").exists()
    assert (tmp_path / "plots" / "roc.png").exists()


def test_the_json_is_what_evaluate_prints_and_the_slices(report):
    found = json.loads(Path(report["report.json"]).read_text())

    slices = found.pop("slices")
    printed = an_evaluation().to_json_dict()
    printed.pop("seconds")
    assert found == json.loads(json.dumps(printed))
    assert slices["cold items"]["new"]["users"] == 7
    assert slices["cold items"]["new"]["hr@5"]["sasrec"]["value"] <= 1


def test_a_number_that_is_not_one_is_refused_before_anything_is_written(tmp_path):
    evaluation = an_evaluation(facts={"loss": float("nan")})

    with pytest.raises(ValueError, match="JSON"):
        write(evaluation, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_the_whole_catalogue_has_ranks_and_no_scores_so_no_roc(tmp_path):
    written = write(an_evaluation("full", models=CHEAP), tmp_path)

    assert "plots/roc.png" not in written
    assert "plots/hit-rates.png" in written
    text = Path(written["report.md"]).read_text()
    assert "| model | AUC per user | HR@5 | MRR@5 | NDCG@5 | HR@10 |" in text
    assert "8,999" in text


def test_the_calibration_error_stands_in_text_and_page(report):
    assert "| mllm | 0.210 | 0.030 | 0.700 | -1.100 |" in Path(report["report.md"]).read_text()
    assert "<td>0.210</td><td>0.030</td>" in Path(report["report.html"]).read_text()


def test_without_probabilities_there_is_no_calibration(tmp_path):
    written = write(an_evaluation(models=CHEAP, slices={}), tmp_path)

    assert not [name for name in written if "calibration" in name]
    assert 'id="calibration"' not in Path(written["report.html"]).read_text()


@pytest.mark.parametrize("model", ["random", "popularity", "mllm"])
def test_one_model_alone_makes_a_report_that_claims_nothing(tmp_path, model):
    text = Path(write(an_evaluation(models=(model,)), tmp_path)["report.md"]).read_text()

    assert "no model is shown to be better" in text
    assert f"| {model} |" in text


def test_one_user_is_enough_for_every_plot(tmp_path):
    slices = a_slice("cold items", "new", num_users=1)
    written = write(an_evaluation(num_users=1, slices=slices), tmp_path)

    assert "| new | 1 (few) |" in Path(written["report.md"]).read_text()
    for name in written:
        if name.endswith(".png"):
            assert Image.open(written[name]).size[0] > 600


def test_slices_whose_names_look_alike_keep_a_file_each(tmp_path):
    alike = {**a_slice("item age", "new"), **a_slice("item (age)", "new")}
    written = write(an_evaluation(models=("random",), slices=alike), tmp_path)

    assert {"plots/slice-1-item-age.png", "plots/slice-2-item-age.png"} <= set(written)


def test_a_page_stays_small_enough_to_be_sent(tmp_path):
    written = write(an_evaluation(num_users=1500), tmp_path)

    assert Path(written["report.html"]).stat().st_size < 1_000_000


def test_markdown_shows_names_as_they_are(tmp_path):
    evil = "a|b *c* <d>\n# e"
    evaluation = an_evaluation(models=("random",), slices=a_slice("by kind", evil))
    text = Path(write(evaluation, tmp_path)["report.md"]).read_text()

    assert r"| a\|b \*c\* &#60;d&#62; # e |" in text
    assert "\n# e" not in text
