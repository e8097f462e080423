"""The methods of fine-tuning: an adapter (`lora`), an adapter on 4-bit weights (`qlora`), or all
weights (`full`).

Each method trains only the language model. The vision tower and the projector stay those of the
base model, so that images are encoded as they were when the summaries were written.
"""

import re
from importlib.util import find_spec
from typing import Any

import torch
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForImageTextToText, BitsAndBytesConfig

from model_training.finetune.config import TrainConfig
from services.core.errors import InputError


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


def loading(config: TrainConfig, model: str, *, device: int) -> dict[str, Any]:
    """Arguments of `from_pretrained` for this method and the checkpoint `model` (a folder or hub
    name); `device` is this process's GPU.
    """
    arguments: dict[str, Any] = {"dtype": weights_dtype(config)}
    if config.method == "qlora":
        arguments["quantization_config"] = quantization(config, without_weights(model))
        arguments["device_map"] = {"": device}
    return arguments


def quantization(config: TrainConfig, model: Any) -> BitsAndBytesConfig:
    """4-bit NormalFloat with double quantization (QLoRA, section 3), multiplied in `precision`.

    Of `model` only the language model's layers are quantized: the vision tower is small and needs
    precision, the head decides on Yes and No.
    """
    decoder = model.get_decoder()
    kept_whole = [name for name, part in model.model.named_children() if part is not decoder]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=weights_dtype(config),
        llm_int8_skip_modules=[*kept_whole, "lm_head"],  # despite its name also for 4 bits
    )


def without_weights(model: str) -> Any:
    """The model of a checkpoint (folder or hub name) whose parameters have shapes alone."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(model))


def name_shardable_layers(model: Any) -> None:
    """Leave only layers that the model has among those that FSDP wraps.

    transformers also names layers of towers that this model lacks, and accelerate refuses those.
    """
    present = {type(part).__name__ for part in model.modules()}
    model._no_split_modules = [name for name in model._no_split_modules if name in present]


def require_layers(model: Any, config: TrainConfig) -> None:
    """InputError if the model lacks a layer to adapt; PEFT would adapt the others silently."""
    names = [name for name, _ in model.get_decoder().named_modules()]
    for layer in config.lora_layers:
        if not any(name.endswith(f".{layer}") for name in names):
            raise InputError(
                f"the language model has no layer {layer!r}, which lora_layers names; take it out, "
                "or name one that this model has"
            )


def new_adapter(config: TrainConfig, model: Any) -> LoraConfig | None:
    """LoRA on the language model alone; None for `full`, which has no adapter."""
    if config.method == "full":
        return None
    decoder = re.escape(_decoder_name(model))
    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        # A regular expression over full names.
        target_modules=rf"{decoder}\..*\.({'|'.join(config.lora_layers)})",
        bias="none",
    )


def freeze_all_but_language_model(model: Any) -> None:
    """For `full`: train only the language model and its head."""
    trained = (f"{_decoder_name(model)}.", "lm_head.")
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith(trained))


def _decoder_name(model: Any) -> str:
    """What the language model is called inside the model; families differ."""
    decoder = model.get_decoder()
    name: str = next(name for name, part in model.named_modules() if part is decoder)
    return name
