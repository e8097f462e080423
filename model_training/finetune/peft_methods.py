"""The methods of fine-tuning: an adapter (`lora`), an adapter on 4-bit weights (`qlora`), or all
weights (`full`).

Each method trains only the language model. The vision tower and the projector stay those of the
base model, so that images are encoded as they were when the summaries were written.
"""

from importlib.util import find_spec
from typing import Any

import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig

from model_training.finetune.config import TrainConfig
from services.core.errors import InputError

# Not in 4 bits: the vision tower is small and needs precision, the head decides on Yes and No.
_KEPT_WHOLE = ["vision_tower", "multi_modal_projector", "lm_head"]


def require_hardware(
    config: TrainConfig, *, has_cuda: bool, has_bitsandbytes: bool | None = None
) -> None:
    """InputError if this machine cannot train by this method, before anything is loaded.

    `has_bitsandbytes` is looked up unless it is given.
    """
    if config.precision == "float16" and not has_cuda:
        raise InputError(
            "precision float16 needs a CUDA GPU and this machine has none; use float32 or bfloat16"
        )
    if config.method != "qlora":
        return
    if not has_cuda:
        raise InputError("method qlora needs a CUDA GPU and this machine has none; use method lora")
    if has_bitsandbytes is None:
        has_bitsandbytes = find_spec("bitsandbytes") is not None
    if not has_bitsandbytes:
        raise InputError("method qlora needs bitsandbytes; run `pip install bitsandbytes`")


def weights_dtype(config: TrainConfig) -> torch.dtype:
    """The dtype of the base model during training.

    Frozen weights have the precision they are multiplied in. Trained weights stay in float32: in
    bfloat16 most of a step of `full` would be lost to rounding.
    """
    precision: torch.dtype = getattr(torch, config.precision)
    return torch.float32 if config.method == "full" else precision


def loading(config: TrainConfig, *, device: int) -> dict[str, Any]:
    """Arguments of `from_pretrained` for this method; `device` is this process's GPU."""
    arguments: dict[str, Any] = {"dtype": weights_dtype(config)}
    if config.method == "qlora":
        arguments["quantization_config"] = quantization(config)
        arguments["device_map"] = {"": device}
    return arguments


def quantization(config: TrainConfig) -> BitsAndBytesConfig:
    """4-bit NormalFloat with double quantization (QLoRA, section 3), multiplied in `precision`."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=weights_dtype(config),
        llm_int8_skip_modules=_KEPT_WHOLE,  # despite its name also for 4 bits
    )


def require_layers(model: Any, config: TrainConfig) -> None:
    """InputError if the model lacks a layer to adapt; PEFT would adapt the others silently."""
    names = [name for name, _ in model.named_modules() if "language_model." in f".{name}"]
    for layer in config.lora_layers:
        if not any(name.endswith(f".{layer}") for name in names):
            raise InputError(
                f"the language model has no layer {layer!r}, which lora_layers names; take it out, "
                "or name one that this model has"
            )


def new_adapter(config: TrainConfig) -> LoraConfig | None:
    """LoRA on the language model alone; None for `full`, which has no adapter."""
    if config.method == "full":
        return None
    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        # A regular expression over full names.
        target_modules=rf".*\blanguage_model\..*\.({'|'.join(config.lora_layers)})",
        bias="none",
    )


def freeze_all_but_language_model(model: Any) -> None:
    """For `full`: train only the language model and its head."""
    for name, weight in model.named_parameters():
        weight.requires_grad_("language_model." in name or name.startswith("lm_head."))
