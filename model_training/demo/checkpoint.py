"""The architecture of the demo model, and its checkpoint.

It is a small LLaVA-NeXT with weights in bfloat16.
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
from services.core.data_folder.atomic_write import unfinished_file

# About 1 / sqrt(hidden size). With the 0.02 of large models, the attention of such a small model
# learns nothing for hundreds of steps.
INITIAL_SPREAD = 0.06

WEIGHTS_FILE = "model.safetensors"

_PUBLISHED_PREFIXES = (
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.image_newline", "image_newline"),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)


def build_config(processor: LlavaNextProcessor) -> LlavaNextConfig:
    """2.6 million parameters, 36 image tokens a cover."""
    tokenizer = processor.tokenizer
    # The last layer, not the last but one, since there are only three.
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


def save_checkpoint(
    model: LlavaNextForConditionalGeneration, processor: LlavaNextProcessor, folder: Path
) -> None:
    """Write configuration, processor and bfloat16 weights, for `from_pretrained`."""
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
    # Last, so that a folder with weights is complete.
    with unfinished_file(folder / WEIGHTS_FILE) as unfinished:
        save_file(weights, unfinished, metadata={"format": "pt"})
        Path(unfinished).chmod(0o644)  # safetensors leaves it to its owner alone


def published_name(name: str) -> str:
    """The name that published LLaVA-NeXT checkpoints have for a parameter, which transformers 5
    calls `name`. vLLM reads only these.
    """
    for own, published in _PUBLISHED_PREFIXES:
        if name.startswith(own):
            return published + name.removeprefix(own).removeprefix("vision_model.")
    raise ValueError(f"no published name is known for the parameter {name!r}")


def load_checkpoint(folder: Path) -> tuple[LlavaNextForConditionalGeneration, LlavaNextProcessor]:
    """The model in float32, in evaluation mode, and its processor."""
    model = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), LlavaNextProcessor.from_pretrained(folder)
