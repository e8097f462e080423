"""Small trainings: a configuration of a few steps, and what a run left in its logs."""

from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model_training.finetune.config import TrainConfig


def a_config(checkpoint: Path, **changes: Any) -> TrainConfig:
    """Two steps of four rows on the tiny base model, in float32."""
    values: dict[str, Any] = {
        "base_model": str(checkpoint),
        "lora_rank": 4,
        "num_negatives": 1,
        "max_steps": 2,
        "batch_size": 4,
        "gradient_checkpointing": False,
        "precision": "float32",
        "checkpoint_steps": 1,
        "log_steps": 1,
        "learning_rate": 1e-2,
        "max_validation_users": 2,
    }
    return TrainConfig(**values | changes)


def logged(data: str, name: str) -> dict[int, set[float]]:
    """Every value that was logged of `name` in the data folder, by step, over all starts of a run.

    More than one value at a step means that a start logged something else there than another.
    """
    found: dict[int, set[float]] = {}
    for file in Path(data).rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(file)).Reload()
        if name in events.Tags()["scalars"]:
            for event in events.Scalars(name):
                found.setdefault(event.step, set()).add(event.value)
    return found
