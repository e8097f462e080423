"""The shape of the demo model, and how its checkpoint is written.

A real LLaVA-NeXT, only small. Weights are written in bfloat16 under the names that published
checkpoints use: transformers reads both those and its own, vLLM reads only those.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    MistralConfig,
)

from model_training.demo.tokenizer import MAX_POSITIONS, PATCH_SIZE
from model_training.demo.world import IMAGE_SIZE

# About 1 / sqrt(hidden size). With the 0.02 of large models, attention of a model this small stays
# blind for hundreds of steps.
INITIAL_SPREAD = 0.06

WEIGHTS_FILE = "model.safetensors"

_PUBLISHED_PREFIXES = (
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.image_newline", "image_newline"),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)


def build_config(processor: LlavaNextProcessor) -> LlavaNextConfig:
    """2.6 million parameters, 36 image tokens a cover."""
    tokenizer = processor.tokenizer
    # The last layer, not the last but one: with three layers none can be spared.
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=IMAGE_SIZE,
            patch_size=PATCH_SIZE,
            projection_dim=128,
        ),
        text_config=MistralConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=3,
            head_dim=32,
            max_position_embeddings=MAX_POSITIONS,
            sliding_window=None,
            initializer_range=INITIAL_SPREAD,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_token_index=processor.image_token_id,
        image_grid_pinpoints=[[IMAGE_SIZE, IMAGE_SIZE]],
        image_seq_length=(IMAGE_SIZE // PATCH_SIZE) ** 2,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config.initializer_range = INITIAL_SPREAD
    return config


def published_name(name: str) -> str:
    """The published name of a parameter that transformers 5 calls `name`."""
    for own, published in _PUBLISHED_PREFIXES:
        if name.startswith(own):
            rest = name.removeprefix(own)
            if published == "vision_tower." and not rest.startswith("vision_model."):
                rest = f"vision_model.{rest}"
            return published + rest
    raise ValueError(f"no published name is known for the parameter {name!r}")


def save_checkpoint(
    model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, folder: Path
) -> None:
    """Write configuration, processor and bfloat16 weights, to be read by `from_pretrained`."""
    folder.mkdir(parents=True, exist_ok=True)
    processor.save_pretrained(folder)
    model.config.architectures = ["LlavaNextForConditionalGeneration"]
    model.config.dtype = "bfloat16"
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    weights = {
        published_name(name): parameter.detach().to(torch.bfloat16).contiguous().clone()
        for name, parameter in model.state_dict().items()
        if not name.endswith("position_ids")
    }
    # Last and at once: a folder that holds weights holds all the rest.
    unfinished = folder / f"{WEIGHTS_FILE}.unfinished"
    save_file(weights, unfinished, metadata={"format": "pt"})
    unfinished.chmod(0o644)  # safetensors leaves it to its owner alone
    unfinished.replace(folder / WEIGHTS_FILE)


def load_checkpoint(folder: Path) -> tuple[LlavaNextForConditionalGeneration, LlavaNextProcessor]:
    """The model in float32, ready to answer, and its processor."""
    model = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), LlavaNextProcessor.from_pretrained(folder)
