"""LoRA, QLoRA and full fine-tuning: what learns, how it is held, what comes of it."""

import asyncio
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model_training.finetune import peft_methods, train
from model_training.finetune.config import TrainConfig
from model_training.finetune.stages.sft import answer_weights
from services.core.errors import InputError
from services.engines.adapter_manifest import read_adapter_manifest
from services.engines.checkpoints import fingerprint_checkpoint, is_merged
from services.engines.open_engine import open_engine
from tests.engines.conftest import a_prompt
from tests.model_training.finetune.training_builders import a_config

QLORA = TrainConfig(base_model="m", method="qlora", precision="bfloat16")


def test_qlora_loads_nf4_with_double_quantization_onto_the_processs_own_gpu(checkpoint: Path):
    loading = peft_methods.loading(QLORA, str(checkpoint), device=3)

    quantization = loading["quantization_config"]
    assert (quantization.load_in_4bit, quantization.bnb_4bit_quant_type) == (True, "nf4")
    assert quantization.bnb_4bit_use_double_quant
    assert quantization.bnb_4bit_compute_dtype == torch.bfloat16
    assert loading["device_map"] == {"": 3}


def test_qlora_keeps_the_vision_tower_the_projector_and_the_head_whole(checkpoint: Path):
    model = peft_methods.without_weights(str(checkpoint))

    kept = peft_methods.quantization(QLORA, model).llm_int8_skip_modules

    assert kept == ["vision_tower", "multi_modal_projector", "lm_head"]


def test_qlora_without_bitsandbytes_is_refused_with_the_remedy():
    with pytest.raises(InputError, match="pip install bitsandbytes"):
        peft_methods.require_hardware(QLORA, has_cuda=True, has_bitsandbytes=False)
    peft_methods.require_hardware(QLORA, has_cuda=True, has_bitsandbytes=True)


def test_weights_that_learn_whole_are_held_in_float32():
    full = TrainConfig(base_model="m", method="full", precision="bfloat16")

    assert peft_methods.weights_dtype(full) == torch.float32
    assert peft_methods.weights_dtype(QLORA) == torch.bfloat16
    assert peft_methods.new_adapter(full, model=None) is None


@pytest.fixture
def fully_trained(data_with_examples: str, checkpoint: Path) -> Path:
    config = a_config(checkpoint, method="full", learning_rate=1e-3, evaluate_steps=1)
    train.run(data_with_examples, config)
    return Path(data_with_examples) / "merged"


def test_full_fine_tuning_changes_the_language_model_and_nothing_else(
    fully_trained: Path, checkpoint: Path
):
    before = load_file(checkpoint / "model.safetensors")
    after = load_file(fully_trained / "model.safetensors")

    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name].float(), after[name])}
    assert {name.split(".")[0] for name in changed} == {"language_model"}
    assert len(changed) > 30


async def test_full_fine_tuning_leaves_a_merged_checkpoint_that_is_served(
    fully_trained: Path, checkpoint: Path
):
    assert is_merged(fully_trained)
    engine = await open_engine("local", model=str(fully_trained))
    answer = await engine.score(a_prompt())
    await engine.close()

    assert engine.identity.model == fingerprint_checkpoint(checkpoint)
    assert answer.yes < 0
    assert "auc" in read_adapter_manifest(fully_trained).validation


def test_class_weights_keep_their_ratio_and_are_one_on_average():
    no, yes = answer_weights(num_negative=8, num_positive=2, positive_weight=4.0)

    assert yes / no == pytest.approx(4)
    assert (8 * no + 2 * yes) / 10 == pytest.approx(1)


def test_a_heavy_positive_class_moves_every_margin_up(data_with_examples, checkpoint, tmp_path):
    def margin(positive_weight: float) -> float:
        config = a_config(checkpoint, max_steps=6, positive_weight=positive_weight)
        folder = tmp_path / str(positive_weight)
        train.run(data_with_examples, config, output=str(folder))
        return asyncio.run(_margin(checkpoint, folder))

    assert margin(20.0) > margin(0.05) + 0.5


async def _margin(checkpoint: Path, adapter: Path) -> float:
    engine = await open_engine("local", model=str(checkpoint), adapter=str(adapter))
    answer = await engine.score(a_prompt())
    await engine.close()
    return answer.yes - answer.no
