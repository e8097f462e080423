"""A stage is one module and one line: a test adds one and trains it."""

from dataclasses import replace
from pathlib import Path

import pytest

from model_training.finetune import train
from model_training.finetune.config import TrainConfig
from model_training.finetune.stages import STAGES
from services.core.errors import InputError
from services.engines.adapter_manifest import read_adapter_manifest
from tests.model_training.finetune.training_builders import a_config


@pytest.fixture
def config(checkpoint: Path) -> TrainConfig:
    return a_config(checkpoint, max_steps=1)


@pytest.fixture(autouse=True)
def toy_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "toy", "tests.model_training.finetune.toy_stage")


def test_a_stage_from_outside_trains_an_adapter(data_with_examples: str, config: TrainConfig):
    config = replace(config, stage_options={"learning_rate_factor": 0.5})
    found = train.run(data_with_examples, config, stage="toy")

    manifest = read_adapter_manifest(Path(data_with_examples) / "adapter-toy")
    assert (manifest.stage, manifest.parent) == ("toy", "")
    assert manifest.config["stage_options"] == {"learning_rate_factor": 0.5}
    assert "validation_auc" in found


def test_an_option_that_the_stage_does_not_have_is_refused(
    data_with_examples: str, config: TrainConfig
):
    config = replace(config, stage_options={"speed": 2.0})

    with pytest.raises(InputError, match=r"'speed'.*learning_rate_factor"):
        train.run(data_with_examples, config, stage="toy")


def test_an_unknown_stage_is_refused_with_the_known_ones(
    data_with_examples: str, config: TrainConfig
):
    with pytest.raises(InputError, match="choose from sft, dpo, rank, harden"):
        train.run(data_with_examples, config, stage="distill")
