"""Experiment values of a training run: one YAML file, loaded into one frozen record.

    config = load_config("model_training/configs/demo.yaml")

A base model that begins with a dot is a folder relative to the file. The record is copied into the
adapter's manifest. What would change the meaning of a score (prompts, answers, block size) is no
experiment value and stands in `services/core`.
"""

import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml

from services.core.errors import MalformedFile

Precision = Literal["float32", "bfloat16"]
Schedule = Literal["constant", "constant_with_warmup", "linear", "cosine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One fine-tuning. `max_steps` of -1 leaves the end to `num_epochs`."""

    base_model: str
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.1
    # Names of linear layers; only those inside the language model are adapted.
    lora_layers: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    num_negatives: int = 1
    num_epochs: float = 1.0
    max_steps: int = -1
    learning_rate: float = 2e-4
    schedule: Schedule = "cosine"
    warmup_fraction: float = 0.03
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    batch_size: int = 4
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = True
    precision: Precision = "bfloat16"
    seed: int = 2025
    num_workers: int = 0
    log_steps: int = 10
    checkpoint_steps: int = 500
    num_checkpoints: int = 2
    # Validation at the end; each user costs 1 + (negatives in the examples) scores.
    max_validation_users: int = 500

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest and for fingerprints."""
        return {**asdict(self), "lora_layers": list(self.lora_layers)}


def load_config(path: str | Path) -> TrainConfig:
    """Read a YAML file of the fields above.

    MalformedFile names the key at fault: unknown, missing, of another type, or out of range.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MalformedFile(f"there is no configuration {path}; name one with --config") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MalformedFile(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise MalformedFile(f"{path} must hold `key: value` lines")
    config = parse_config(values, source=str(path))
    if config.base_model.startswith("."):
        return replace(config, base_model=str((path.parent / config.base_model).resolve()))
    return config


def parse_config(values: dict[str, Any], *, source: str) -> TrainConfig:
    """The record of plain values; `source` names them in messages. Raises MalformedFile."""
    known = {field.name for field in fields(TrainConfig)}
    if unknown := sorted(set(map(str, values)) - known):
        raise MalformedFile(
            f"{source} has an unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}"
        )
    if "base_model" not in values:
        raise MalformedFile(f"{source} lacks base_model: a checkpoint folder or a hub name")
    hints = get_type_hints(TrainConfig)
    typed = {name: _typed(name, value, hints[name], source) for name, value in values.items()}
    config = TrainConfig(**typed)
    for name in _POSITIVE:
        if not getattr(config, name) > 0:  # NaN too
            raise MalformedFile(f"{source}: {name} must be above 0, not {getattr(config, name)}")
    for name in _FRACTIONS:
        if not 0 <= getattr(config, name) < 1:
            raise MalformedFile(f"{source}: {name} must be in [0, 1), not {getattr(config, name)}")
    if not config.lora_layers:
        raise MalformedFile(f"{source}: lora_layers names no layer to adapt")
    return config


_POSITIVE = (
    "lora_rank",
    "lora_alpha",
    "num_negatives",
    "num_epochs",
    "learning_rate",
    "max_gradient_norm",
    "batch_size",
    "gradient_accumulation",
    "log_steps",
    "checkpoint_steps",
    "num_checkpoints",
    "max_validation_users",
)
_FRACTIONS = ("lora_dropout", "warmup_fraction")


def _typed(name: str, value: Any, hint: Any, source: str) -> Any:
    """The value as the field's type; YAML reads 2e-4 as a text, so numbers may come quoted."""
    choices = get_args(hint)
    if hint == tuple[str, ...]:
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            return tuple(value)
        raise MalformedFile(f"{source}: {name} must be a list of names, not {value!r}")
    if choices:
        if value in choices:
            return value
        raise MalformedFile(f"{source}: {name} must be one of {', '.join(choices)}, not {value!r}")
    if hint in (bool, str):
        if isinstance(value, hint):
            return value
    elif not isinstance(value, bool):
        try:
            if math.isfinite(float(value)) and hint(value) == float(value):
                return hint(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise MalformedFile(f"{source}: {name} must be of type {hint.__name__}, not {value!r}")
