"""A training that is killed goes on as if nothing had been; the best checkpoint is published."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from structlog.testing import capture_logs
from transformers import TrainerCallback

from model_training.finetune import train
from model_training.finetune.config import TrainConfig
from model_training.finetune.run_plan import checkpoints, plan_run, scratch_folder
from model_training.finetune.stages import sft
from model_training.finetune.trainer import fit
from model_training.finetune.validation_callback import METRIC
from services.engines.adapter_manifest import read_adapter_manifest
from tests.model_training.finetune.training_builders import a_config, logged

WEIGHTS = "adapter_model.safetensors"


class InterruptAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self._step:
            raise KeyboardInterrupt


@pytest.fixture
def interrupt(data_with_examples: str) -> Callable[[TrainConfig, int], Path]:
    """Trains until a step, without its checkpoint; gives the folder of the checkpoints."""

    def run(config: TrainConfig, step: int) -> Path:
        plan = plan_run(data_with_examples, config, config.base_model, sft.STAGE)
        scratch = scratch_folder(plan, Path(data_with_examples))
        with pytest.raises(KeyboardInterrupt):
            fit(replace(plan, callbacks=(InterruptAt(step),)), scratch, scratch / "trained")
        return scratch

    return run


@pytest.fixture
def demanding(checkpoint: Path) -> TrainConfig:
    """All that a resumed run could lose: epochs, accumulation, losses not yet logged, dropout."""
    return a_config(
        checkpoint,
        max_steps=18,
        gradient_accumulation=2,
        lora_dropout=0.3,
        schedule="cosine",
        warmup_fraction=0.2,
        log_steps=2,
        checkpoint_steps=5,
        evaluate_steps=4,
        patience=20,
    )


def _kill_after_a_checkpoint(data: str, config: TrainConfig, number: int) -> None:
    file = Path(data).parent / "config.yaml"
    file.write_text(yaml.safe_dump(config.as_dict()))
    command = [sys.executable, "-m", "services.cli", "train", "--data", data]
    process = subprocess.Popen([*command, "--config", str(file)])
    while process.poll() is None:
        if list(Path(data).glob(f"training/*/checkpoint-{number}/trainer_state.json")):
            process.send_signal(signal.SIGKILL)
        time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_killed_process_resumes_with_the_same_losses_and_the_same_bytes(
    data_with_examples: str, demanding: TrainConfig, tmp_path: Path
):
    whole = shutil.copytree(data_with_examples, tmp_path / "whole")
    train.run(str(whole), demanding)
    _kill_after_a_checkpoint(data_with_examples, demanding, 5)
    with capture_logs() as events:
        train.run(data_with_examples, demanding)

    assert events[0]["resumed"] in {
        "checkpoint-5",
        "checkpoint-8",
        "checkpoint-10",
        "checkpoint-12",
    }
    for name in ("train/loss", "train/grad_norm", f"eval/{METRIC}"):
        undisturbed = logged(str(whole), name)
        assert logged(data_with_examples, name) == undisturbed
        assert max(undisturbed) == 18
    cut = Path(data_with_examples) / "adapter" / WEIGHTS
    assert cut.read_bytes() == (whole / "adapter" / WEIGHTS).read_bytes()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    data_with_examples: str, checkpoint: Path, tmp_path: Path
):
    def trained(name: str, seed: int) -> bytes:
        data = str(shutil.copytree(data_with_examples, tmp_path / name))
        train.run(data, a_config(checkpoint, seed=seed))
        return (Path(data) / "adapter" / WEIGHTS).read_bytes()

    first, again, other = trained("first", 1), trained("again", 1), trained("other", 2)

    assert first == again
    assert first != other


def test_what_a_kill_left_half_written_is_not_resumed_from(
    data_with_examples: str, checkpoint: Path, interrupt
):
    config = a_config(checkpoint, max_steps=4)
    scratch = interrupt(config, 3)
    (scratch / "checkpoint-3").mkdir()
    (scratch / "checkpoint-4").mkdir()
    (scratch / "checkpoint-4" / "trainer_state.json").write_text('{"epoch": ')

    with capture_logs() as events:
        train.run(data_with_examples, config)

    assert events[0]["resumed"] == "checkpoint-2"


def test_training_ends_early_and_publishes_the_best_checkpoint(
    data_with_examples: str, checkpoint: Path
):
    # Steps too small to change any margin: the first evaluation stays the best.
    config = a_config(checkpoint, max_steps=9, learning_rate=1e-20, evaluate_steps=1, patience=2)
    with capture_logs() as events:
        train.run(data_with_examples, config)

    assert [e["published"] for e in events if e["event"] == "training_ended"] == ["checkpoint-1"]
    assert sorted(logged(data_with_examples, f"eval/{METRIC}")) == [1, 2, 3]


def test_patience_survives_an_interruption(data_with_examples: str, checkpoint: Path, interrupt):
    config = a_config(checkpoint, max_steps=9, learning_rate=1e-20, evaluate_steps=1, patience=3)
    interrupt(config, 4)

    train.run(data_with_examples, config)

    assert sorted(logged(data_with_examples, "train/loss")) == [1, 2, 3, 4]


def test_a_run_killed_after_its_last_checkpoint_trains_no_further_step(
    data_with_examples: str, checkpoint: Path
):
    config = a_config(checkpoint, max_steps=9, learning_rate=1e-20, evaluate_steps=1, patience=2)
    plan = plan_run(data_with_examples, config, config.base_model, sft.STAGE)
    scratch = scratch_folder(plan, Path(data_with_examples))
    fit(plan, scratch, scratch / "trained")
    shutil.rmtree(scratch / "trained")

    train.run(data_with_examples, config)

    assert sorted(logged(data_with_examples, "train/loss")) == [1, 2, 3]
    assert not checkpoints(scratch)


def test_validation_on_the_way_is_the_one_that_serves(data_with_examples: str, checkpoint: Path):
    config = a_config(checkpoint, evaluate_steps=2)
    train.run(data_with_examples, config)

    (on_the_way,) = logged(data_with_examples, f"eval/{METRIC}")[2]
    manifest = read_adapter_manifest(Path(data_with_examples) / "adapter")
    assert on_the_way == pytest.approx(manifest.validation["auc"], abs=1e-6)
