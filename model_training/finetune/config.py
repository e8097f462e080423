"""The configuration of a training run: one YAML file, loaded into a frozen dataclass.

    config = load_config("model_training/configs/demo.yaml")

A base model that begins with a dot is a folder relative to the file. The configuration is copied
into the adapter's manifest. Values that change the meaning of a score (prompts, answers, block
size) are not configured here but defined in `services/core`.
"""

import math
import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from services.core.errors import MalformedFile

Method = Literal["lora", "qlora", "full"]
Precision = Literal["float32", "bfloat16", "float16"]
Tracker = Literal["tensorboard", "wandb", "mlflow"]
Schedule = Literal["constant", "constant_with_warmup", "linear", "cosine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One fine-tuning. With `max_steps` -1, `num_epochs` decides when it ends."""

    base_model: str
    # An adapter, an adapter on 4-bit weights (GPU only), or all weights of the language model.
    method: Method = "lora"
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
    # Of the examples, per positive: uniform negatives, and hard ones from the cheap rankers.
    num_negatives: int = 1
    num_hard_negatives: int = 0
    # Weight of a positive row in the loss, relative to 1 for a negative one. With the number of
    # negatives per positive both classes have equal weight.
    positive_weight: float = 1.0
    # Share of the prompts whose title gets text that a stranger may have written: instead of the
    # title, or in stage harden in a second prompt (hostile_titles.py).
    hostile_titles: float = 0.0
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
    # Validation AUC every `evaluate_steps` steps on `evaluate_users` of these users; 0: only at the
    # end. The best evaluated checkpoint is published. Training ends after `patience` evaluations in
    # a row without a better one; 0: never early.
    evaluate_steps: int = 0
    evaluate_users: int = 100
    patience: int = 0
    # Where the run reports; like `push_to_hub` not part of the fingerprint.
    trackers: tuple[Tracker, ...] = ("tensorboard",)
    push_to_hub: str = ""  # a hub name for the published folder, private unless it exists
    # Stage dpo: the penalty for moving away from the start adapter.
    dpo_beta: float = 0.1
    # Stage rank: the target item and this many negatives share one softmax over margins.
    rank_negatives: int = 7
    rank_temperature: float = 1.0
    # Stage harden: weight of the loss under hostile titles, relative to 1 for an item's own title.
    hostile_weight: float = 1.0
    # Settings of a stage that has some of its own (`Stage.options`).
    stage_options: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the manifest and for fingerprints.

        Trackers and the hub are left out, since they do not change what is trained; the plan adds
        the options of the stage.
        """
        values = {**asdict(self), "lora_layers": list(self.lora_layers)}
        return {name: value for name, value in values.items() if name not in _NOT_RECORDED}


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
    """The configuration of plain values; messages name `source`. Raises MalformedFile."""
    known = {each.name for each in fields(TrainConfig)}
    if unknown := sorted(set(map(str, values)) - known):
        raise MalformedFile(
            f"{source} has an unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}"
        )
    if "base_model" not in values:
        raise MalformedFile(f"{source} lacks base_model: a checkpoint folder or a hub name")
    hints = get_type_hints(TrainConfig)
    typed = {name: _typed(name, value, hints[name], source) for name, value in values.items()}
    config = TrainConfig(**typed)
    _require_ranges(config, source)
    return config


def _require_ranges(config: TrainConfig, source: str) -> None:
    def value(name: str) -> Any:
        return getattr(config, name)

    for name in _POSITIVE:
        if not value(name) > 0:  # NaN too
            raise MalformedFile(f"{source}: {name} must be above 0, not {value(name)}")
    for name in _NOT_NEGATIVE:
        if not value(name) >= 0:
            raise MalformedFile(f"{source}: {name} must be 0 or above, not {value(name)}")
    for name in _FRACTIONS:
        if not 0 <= value(name) < 1:
            raise MalformedFile(f"{source}: {name} must be in [0, 1), not {value(name)}")
    if not (config.max_steps > 0 or config.max_steps == -1):
        raise MalformedFile(
            f"{source}: max_steps must be above 0, or -1 for num_epochs, not {config.max_steps}"
        )
    if config.num_negatives + config.num_hard_negatives == 0:
        raise MalformedFile(
            f"{source}: num_negatives and num_hard_negatives are both 0, but training needs "
            "negatives; raise one of them"
        )
    if config.patience and not config.evaluate_steps:
        raise MalformedFile(
            f"{source}: patience counts evaluations and there are none; set evaluate_steps"
        )
    if config.method == "qlora" and config.precision == "float32":
        raise MalformedFile(
            f"{source}: precision must be bfloat16 or float16 with method qlora, whose 4-bit "
            "weights are multiplied in it"
        )
    if not config.lora_layers:
        raise MalformedFile(f"{source}: lora_layers names no layer to adapt")
    if strange := [name for name in config.lora_layers if not _LAYER.fullmatch(name)]:
        raise MalformedFile(f"{source}: lora_layers has {strange[0]!r}, which is no layer's name")
    if not 0 <= config.seed < 2**32:
        raise MalformedFile(f"{source}: seed must be from 0 to 2**32 - 1, not {config.seed}")


_LAYER = re.compile(r"\w+(\.\w+)*")
_NOT_RECORDED = ("trackers", "push_to_hub", "stage_options")
_POSITIVE = (
    "lora_rank",
    "lora_alpha",
    "positive_weight",
    "num_epochs",
    "learning_rate",
    "max_gradient_norm",
    "batch_size",
    "gradient_accumulation",
    "log_steps",
    "checkpoint_steps",
    "num_checkpoints",
    "max_validation_users",
    "evaluate_users",
    "dpo_beta",
    "rank_negatives",
    "rank_temperature",
    "hostile_weight",
)
_NOT_NEGATIVE = (
    "num_negatives",
    "num_hard_negatives",
    "weight_decay",
    "num_workers",
    "evaluate_steps",
    "patience",
)
_FRACTIONS = ("lora_dropout", "warmup_fraction", "hostile_titles")


def _typed(name: str, value: Any, hint: Any, source: str) -> Any:
    """The value as the field's type; YAML reads 2e-4 as a text, so numbers may come quoted."""
    if get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise MalformedFile(f"{source}: {name} must hold `key: value` lines, not {value!r}")
        each = get_args(hint)[1]
        return {str(key): _typed(f"{name}.{key}", v, each, source) for key, v in value.items()}
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise MalformedFile(f"{source}: {name} must be a list of names, not {value!r}")
        return tuple(_typed(name, entry, get_args(hint)[0], source) for entry in value)
    if choices := get_args(hint):
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
