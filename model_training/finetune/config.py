"""The configuration of a training run: one YAML file, loaded into a frozen dataclass.

    config = load_config("model_training/configs/demo.yaml")

A base model that begins with a dot is a folder relative to the file. The configuration is copied
into the adapter's manifest. Values that change the meaning of a score (prompts, answers, block
size) are not configured here but defined in `services/core`.
"""

from dataclasses import asdict, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from services.core.errors import MalformedFile

Method = Literal["lora", "qlora", "full"]
Precision = Literal["float32", "bfloat16", "float16"]
Tracker = Literal["tensorboard", "wandb", "mlflow"]
Schedule = Literal["constant", "constant_with_warmup", "linear", "cosine"]


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is needed")  # noqa: TRY004  pydantic reports this one
    return value


# Numbers may come quoted: YAML reads 2e-4 as a text.
_Int = Annotated[int, BeforeValidator(_no_bool)]
_Float = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Count = Annotated[_Int, Field(gt=0)]
CountOrNone = Annotated[_Int, Field(ge=0)]
Positive = Annotated[_Float, Field(gt=0)]
Fraction = Annotated[_Float, Field(ge=0, lt=1)]
Flag = Annotated[bool, Field(strict=True)]
Layer = Annotated[str, Field(pattern=r"^\w+(\.\w+)*$")]


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TrainConfig:
    """One fine-tuning. With `max_steps` -1, `num_epochs` decides when it ends."""

    base_model: str
    # An adapter, an adapter on 4-bit weights (GPU only), or all weights of the language model.
    method: Method = "lora"
    lora_rank: Count = 16
    lora_alpha: Count = 32
    lora_dropout: Fraction = 0.1
    # Names of linear layers; only those inside the language model are adapted.
    lora_layers: Annotated[tuple[Layer, ...], Field(min_length=1)] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    # Of the examples, per positive: uniform negatives, and hard ones from the cheap rankers.
    num_negatives: CountOrNone = 1
    num_hard_negatives: CountOrNone = 0
    # Of the training users as many as give this many rows at most, drawn by the seed; 0: all.
    max_rows: CountOrNone = 0
    # Weight of a positive row in the loss, relative to 1 for a negative one. With the number of
    # negatives per positive both classes have equal weight.
    positive_weight: Positive = 1.0
    # Share of the prompts whose title gets text that a stranger may have written: instead of the
    # title, or in stage harden in a second prompt (hostile_titles.py).
    hostile_titles: Fraction = 0.0
    num_epochs: Positive = 1.0
    max_steps: _Int = -1
    learning_rate: Positive = 2e-4
    schedule: Schedule = "cosine"
    warmup_fraction: Fraction = 0.03
    weight_decay: Annotated[_Float, Field(ge=0)] = 0.0
    max_gradient_norm: Positive = 1.0
    batch_size: Count = 4
    gradient_accumulation: Count = 1
    gradient_checkpointing: Flag = True
    precision: Precision = "bfloat16"
    seed: Annotated[_Int, Field(ge=0, lt=2**32)] = 2025
    num_workers: CountOrNone = 0
    log_steps: Count = 10
    checkpoint_steps: Count = 500
    num_checkpoints: Count = 2
    # Validation at the end; each user costs 1 + (negatives in the examples) scores.
    max_validation_users: Count = 500
    # Validation AUC every `evaluate_steps` steps on `evaluate_users` of these users; 0: only at the
    # end. The best evaluated checkpoint is published. Training ends after `patience` evaluations in
    # a row without a better one; 0: never early.
    evaluate_steps: CountOrNone = 0
    evaluate_users: Count = 100
    patience: CountOrNone = 0
    # Where the run reports; like `push_to_hub` not part of the fingerprint.
    trackers: tuple[Tracker, ...] = ("tensorboard",)
    push_to_hub: str = ""  # a hub name for the published folder, private unless it exists
    # Stage dpo: the penalty for moving away from the start adapter.
    dpo_beta: Positive = 0.1
    # Stage rank: the target item and this many negatives share one softmax over margins.
    rank_negatives: Count = 7
    rank_temperature: Positive = 1.0
    # Stage harden: weight of the loss under hostile titles, relative to 1 for an item's own title.
    hostile_weight: Positive = 1.0
    # Settings of a stage that has some of its own (`Stage.options`).
    stage_options: dict[str, _Float] = field(default_factory=dict)

    @model_validator(mode="after")
    def _require_fitting_values(self) -> "TrainConfig":
        if not (self.max_steps > 0 or self.max_steps == -1):
            raise ValueError("max_steps must be above 0, or -1 for num_epochs")
        if self.num_negatives + self.num_hard_negatives == 0:
            raise ValueError(
                "num_negatives and num_hard_negatives are both 0, but training needs negatives; "
                "raise one of them"
            )
        if self.patience and not self.evaluate_steps:
            raise ValueError("patience counts evaluations and there are none; set evaluate_steps")
        if self.method == "qlora" and self.precision == "float32":
            raise ValueError(
                "precision must be bfloat16 or float16 with method qlora, whose 4-bit weights are "
                "multiplied in it"
            )
        return self

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the manifest and for fingerprints.

        Trackers and the hub are left out, since they do not change what is trained; the plan adds
        the options of the stage. What was added later is left out while it is not used, so that
        earlier runs keep their fingerprints.
        """
        values = {**asdict(self), "lora_layers": list(self.lora_layers)}
        unused = {name for name in _RECORDED_IF_USED if not values[name]}
        return {name: values[name] for name in values if name not in {*_NOT_RECORDED, *unused}}


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
    try:
        return TypeAdapter(TrainConfig).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        what = f"{key} is {first['input']!r}: " if key else ""
        message = first["msg"].removeprefix("Value error, ")
        raise MalformedFile(f"{source}: {what}{message}") from error


_RECORDED_IF_USED = ("max_rows",)
_NOT_RECORDED = ("trackers", "push_to_hub", "stage_options")
