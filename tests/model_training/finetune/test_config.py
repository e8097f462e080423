"""Configurations are read strictly."""

import math
from pathlib import Path

import pytest

from model_training.finetune.config import TrainConfig, load_config, parse_config
from services.core.errors import MalformedFile

CONFIGS = Path(__file__).parents[3] / "model_training" / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_loads(path: Path):
    config = load_config(path)

    assert (config.lora_rank, config.lora_alpha, config.lora_dropout) == (16, 32, 0.1)


def test_the_demo_base_model_is_found_beside_its_configuration():
    folder = CONFIGS.parent / "demo" / "weights" / "base"

    assert load_config(CONFIGS / "demo.yaml").base_model == str(folder.resolve())


def test_numbers_that_yaml_reads_as_text_are_numbers():
    config = parse_config(
        {"base_model": "m", "learning_rate": "2e-4", "batch_size": 8.0}, source=""
    )

    assert (config.learning_rate, config.batch_size) == (2e-4, 8)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"base_model": "m", "lora_rnak": 8}, "unknown key 'lora_rnak'"),
        ({"lora_rank": 8}, "lacks base_model"),
        ({"base_model": "m", "seed": -1}, "seed is -1: .* greater than or equal to 0"),
        ({"base_model": "m", "lora_layers": ["("]}, "lora_layers.0 is '\\(': String .* pattern"),
        ({"base_model": "m", "batch_size": "many"}, "batch_size is 'many': .* valid integer"),
        ({"base_model": "m", "batch_size": 1.5}, "batch_size is 1.5: .* valid integer"),
        ({"base_model": "m", "batch_size": True}, "batch_size is True: a number is needed"),
        ({"base_model": "m", "batch_size": 0}, "batch_size is 0: .* greater than 0"),
        ({"base_model": "m", "learning_rate": math.nan}, "learning_rate is nan: .* finite number"),
        ({"base_model": "m", "learning_rate": math.inf}, "learning_rate is inf: .* finite number"),
        ({"base_model": "m", "lora_dropout": 1.0}, "lora_dropout is 1.0: Input .* less than 1"),
        ({"base_model": "m", "precision": "int4"}, "precision is 'int4': Input .* 'float32'"),
        ({"base_model": "m", "lora_layers": "q_proj"}, "lora_layers is 'q_proj': Input .* tuple"),
        ({"base_model": "m", "lora_layers": []}, r"lora_layers is \[\]: Tuple .* at least 1"),
        ({"base_model": "m", "gradient_checkpointing": "yes"}, "gradient_checkpointing is 'yes'"),
        ({"base_model": "m", "method": "dora"}, "method is 'dora': Input .* 'qlora'"),
        ({"base_model": "m", "method": "qlora", "precision": "float32"}, "precision must be bfl"),
        ({"base_model": "m", "patience": 2}, "set evaluate_steps"),
        (
            {"base_model": "m", "patience": -1},
            "patience is -1: .* greater than or equal to 0",
        ),
        (
            {"base_model": "m", "positive_weight": 0},
            "positive_weight is 0: .* greater than 0",
        ),
        ({"base_model": "m", "num_negatives": 0}, "num_hard_negatives are both 0"),
        ({"base_model": "m", "max_steps": 0}, "max_steps must be above 0, or -1"),
        (
            {"base_model": "m", "trackers": ["notebook"]},
            "trackers.0 is 'notebook': .* 'tensorboard'",
        ),
        ({"base_model": "m", "trackers": "wandb"}, "trackers is 'wandb': Input .* tuple"),
    ],
)
def test_a_wrong_value_is_named(values: dict, message: str):
    with pytest.raises(MalformedFile, match=message):
        parse_config(values, source="file.yaml")


@pytest.mark.parametrize("text", ["- a list", "", "base_model: [", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str):
    (tmp_path / "config.yaml").write_text(text)

    with pytest.raises(MalformedFile, match=r"config\.yaml"):
        load_config(tmp_path / "config.yaml")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(MalformedFile, match="there is no configuration"):
        load_config(tmp_path / "absent.yaml")


def test_the_manifest_gets_plain_values():
    assert TrainConfig(base_model="m").as_dict()["lora_layers"][0] == "q_proj"


def test_who_watches_a_run_is_no_part_of_what_it_is():
    watched = TrainConfig(base_model="m", trackers=("wandb",), push_to_hub="team/adapter")

    assert watched.as_dict() == TrainConfig(base_model="m").as_dict()
