"""A tiny LLaVA-NeXT with random weights, and an adapter on it: what the engines are tested with."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import LlavaNextForConditionalGeneration

from model_training.demo.checkpoint import build_config, load_checkpoint, save_checkpoint
from model_training.demo.tokenizer import build_processor, build_tokenizer
from model_training.demo.world import IMAGE_SIZE
from services.core.images import prepare_image
from services.core.prompts import Messages, scoring_messages
from services.core.records import Item, ItemId
from services.engines.adapter_manifest import AdapterManifest, current_definition


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    processor = build_processor(build_tokenizer(num_items=50))
    save_checkpoint(LlavaNextForConditionalGeneration(build_config(processor)), processor, folder)
    return folder


@pytest.fixture(scope="session")
def adapter(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    model, _ = load_checkpoint(checkpoint)
    torch.manual_seed(1)
    targets = r".*language_model.*\.(q_proj|v_proj)"
    lora = LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
    get_peft_model(model, lora).save_pretrained(folder)
    return folder


def a_cover(color: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), color).save(file, "PNG")
    return prepare_image(file.getvalue(), IMAGE_SIZE)


def a_prompt(title: str = "a calm fox", color: str | None = "red", taste: str = "red") -> Messages:
    image = a_cover(color) if color is not None else None
    return scoring_messages(taste, Item(ItemId("i1"), title, image))


def a_manifest(**changes: Any) -> AdapterManifest:
    """A manifest that this version serves on base `base-1`; `changes` replace fields."""
    fields: dict[str, Any] = {
        "fingerprint": "f1",
        "weights": "w1",
        "stage": "sft",
        "parent": "",
        "protocol": "chrono-uniform",
        "definition": current_definition(),
        "model": "base-1",
        "model_name": "base",
        "image_size": 56,
        "answer_tokens": {"yes": 1, "no": 2},
        "inputs": {},
        "config": {},
        "counts": {},
        "validation": {},
        "calibration": {
            **{"slope": 0.5, "intercept": -1.0, "prior": 0.25},
            **{"ece_before": 0.2, "ece_after": 0.01},
        },
        "versions": {},
    }
    return AdapterManifest(**{**fields, **changes})
