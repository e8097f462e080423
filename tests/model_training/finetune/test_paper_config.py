"""configs/paper.yaml is what docs/method.md says of it."""

import re

import pytest
import yaml

from model_training.finetune.config import TrainConfig, load_config, parse_config
from tests.docs.documents import ROOT

CONFIG = ROOT / "model_training" / "configs" / "paper.yaml"
METHOD = ROOT / "docs" / "method.md"
_SETTING = re.compile(r"`(\w+): ([^`]+)`")
# What the issue of this page asked about, by a word of its row.
ASKED = (
    *("writer of", "decoding", "summaries", "history of", "training rows", "negatives in training"),
    *("learning rate", "epochs", "order of", "ids in", "loss", "layers with", "popular"),
)


def rows() -> list[list[str]]:
    """The cells of the table of differences, without its head."""
    section = METHOD.read_text(encoding="utf-8").split("## Every difference")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def settings() -> dict[str, str]:
    return {key: value for row in rows() for key, value in _SETTING.findall(row[-1])}


def test_the_file_says_what_the_table_says():
    config = load_config(CONFIG)
    said = parse_config(
        {"base_model": "none", **{key: yaml.safe_load(text) for key, text in settings().items()}},
        source="docs/method.md",
    )

    assert {key: getattr(config, key) for key in settings()} == {
        key: getattr(said, key) for key in settings()
    }


def test_the_table_names_every_setting_of_the_file_but_those_of_the_machine():
    of_the_machine = {"gradient_checkpointing", "num_workers", "checkpoint_steps", "seed"}

    assert set(yaml.safe_load(CONFIG.read_text())) - of_the_machine == set(settings())


def test_every_row_has_all_cells_and_a_reason_or_no_difference():
    for what, paper, here, why, option in rows():
        assert what
        assert paper
        assert option, what
        assert why or "same" in here, what


@pytest.mark.parametrize("word", ASKED)
def test_every_deviation_that_was_asked_about_has_a_row(word: str):
    assert [row[0] for row in rows() if word in row[0]], word


def test_unused_options_leave_earlier_fingerprints_as_they_were():
    earlier = TrainConfig(base_model="base").as_dict()

    assert "max_rows" not in earlier
    assert TrainConfig(base_model="base", max_rows=10).as_dict()["max_rows"] == 10
