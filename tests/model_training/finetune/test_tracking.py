"""Who watches a run: trackers that are there, a hub that is asked nicely; never another run."""

from pathlib import Path

import pytest

from model_training.finetune import tracking, train
from model_training.finetune.config import TrainConfig
from services.core.errors import InputError
from tests.model_training.finetune.training_builders import a_config

CONFIG = TrainConfig(base_model="base")


@pytest.mark.parametrize("tracker", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_refused_with_the_command(tracker: str):
    with pytest.raises(InputError, match=f"pip install {tracker}"):
        tracking.reporting(CONFIG, [tracker], None, is_installed=lambda name: name != tracker)
    found = tracking.reporting(CONFIG, [tracker], None, is_installed=lambda name: True)
    assert found.trackers == (tracker,)


def test_an_unknown_tracker_is_refused():
    with pytest.raises(InputError, match="no tracker 'notebook'; known are tensorboard, wandb"):
        tracking.reporting(CONFIG, ["notebook"], None)


def test_pushing_without_a_token_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))

    with pytest.raises(InputError, match="HF_TOKEN"):
        tracking.require_token()


def test_a_finished_adapter_is_pushed_and_a_finished_run_is_pushed_without_training(
    data_with_examples: str, checkpoint: Path
):
    pushed: list[tuple[set[str], str]] = []

    def upload(folder: Path, name: str) -> str:
        pushed.append(({file.name for file in folder.iterdir()}, name))
        return f"https://hub.test/{name}"

    train.run(data_with_examples, a_config(checkpoint))  # watched by nobody
    config = a_config(checkpoint, trackers=())
    result = train.run(data_with_examples, config, push_to_hub="team/adapter", upload=upload)

    files = {"adapter_config.json", "adapter_model.safetensors", "manifest.json"}
    assert pushed == [(files, "team/adapter")]
    assert result["pushed_to"] == "https://hub.test/team/adapter"
    assert len(list(Path(data_with_examples).glob("training/*"))) == 1


def test_a_run_without_trackers_leaves_no_logs(data_with_examples: str, checkpoint: Path):
    train.run(data_with_examples, a_config(checkpoint, trackers=()))

    assert not list(Path(data_with_examples).rglob("events.out.tfevents.*"))
