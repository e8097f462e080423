"""Checkpoints of the real architecture with random weights, made on the spot from a seed.

    TINY       1 million parameters, for quick forms
    SMALL      33 million parameters: both sides of a comparison run on two CPU cores in minutes
    SEVEN_B    the shape of the published LLaVA-NeXT on Mistral 7B; only its configuration is
               written, vLLM makes up the weights (`--load-format dummy`)

Both see what published LLaVA-NeXT sees: images of 336 pixels in patches of 14 on the published
grid, 1,176 image tokens for a square cover. How fast a model runs does not depend on what its
weights say, only the length of its answers does: so the head never chooses an end token here, and
every answer has exactly the length asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
)

from benchmarks.support.synthetic_catalogue import draw_preference, draw_summary, draw_title
from model_training.demo.checkpoint import save_checkpoint
from model_training.demo.tokenizer import (
    BEGIN,
    CHAT_TEMPLATE,
    END,
    IMAGE,
    PADDING,
    SPECIAL_TOKENS,
    UNKNOWN,
)
from services.core import prompt_phrases, scoring
from services.core.images import DEFAULT_IMAGE_SIZE
from services.engines.adapter_manifest import MANIFEST, AdapterManifest, current_definition
from services.engines.checkpoints import fingerprint_checkpoint
from services.engines.prompt_encoding import PromptEncoder

PATCH_SIZE = 14
MAX_POSITIONS = 4096
LEARNED_VOCABULARY = 2000

# height x width of the images that published LLaVA-NeXT cuts into tiles.
_SIDE = DEFAULT_IMAGE_SIZE
PUBLISHED_GRID = [
    [_SIDE, 2 * _SIDE],
    [2 * _SIDE, _SIDE],
    [2 * _SIDE, 2 * _SIDE],
    [3 * _SIDE, _SIDE],
    [_SIDE, 3 * _SIDE],
]


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a LLaVA-NeXT is: its vision tower, then its language model."""

    vision_hidden: int
    vision_mlp: int
    vision_layers: int
    vision_heads: int
    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int


TINY = Shape(
    vision_hidden=64,
    vision_mlp=128,
    vision_layers=2,
    vision_heads=2,
    hidden=128,
    mlp=256,
    layers=2,
    heads=2,
    kv_heads=1,
    vocabulary=LEARNED_VOCABULARY,
)
SMALL = Shape(
    vision_hidden=256,
    vision_mlp=1024,
    vision_layers=8,
    vision_heads=4,
    hidden=512,
    mlp=1536,
    layers=8,
    heads=8,
    kv_heads=2,
    vocabulary=LEARNED_VOCABULARY,
)
SEVEN_B = Shape(
    vision_hidden=1024,
    vision_mlp=4096,
    vision_layers=24,
    vision_heads=16,
    hidden=4096,
    mlp=14336,
    layers=32,
    heads=32,
    kv_heads=8,
    vocabulary=32_064,
)

# What `--model` takes.
SHAPES = {"small": SMALL, "tiny": TINY}


def build_config(shape: Shape) -> LlavaNextConfig:
    """The configuration of a checkpoint of this shape; token ids are those of `build_processor`."""
    special = {
        name: SPECIAL_TOKENS.index(token)
        for name, token in (("bos", BEGIN), ("eos", END), ("pad", PADDING), ("image", IMAGE))
    }
    ends = {f"{name}_token_id": special[name] for name in ("bos", "eos", "pad")}
    spread = shape.hidden**-0.5  # with the usual 0.02 a model this small gives one answer to all
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=shape.vision_hidden,
            intermediate_size=shape.vision_mlp,
            num_hidden_layers=shape.vision_layers,
            num_attention_heads=shape.vision_heads,
            image_size=DEFAULT_IMAGE_SIZE,
            patch_size=PATCH_SIZE,
            projection_dim=shape.vision_hidden,
        ),
        text_config=MistralConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=shape.mlp,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.hidden // shape.heads,
            max_position_embeddings=MAX_POSITIONS,
            sliding_window=None,
            initializer_range=spread,
            tie_word_embeddings=False,
            **ends,
        ),
        image_token_index=special["image"],
        image_grid_pinpoints=PUBLISHED_GRID,
        image_seq_length=(DEFAULT_IMAGE_SIZE // PATCH_SIZE) ** 2,
        tie_word_embeddings=False,
        architectures=["LlavaNextForConditionalGeneration"],
        **ends,
    )
    config.initializer_range = spread
    config.dtype = "bfloat16"
    return config


def build_processor(shape: Shape) -> LlavaNextProcessor:
    """Byte-level tokenizer of the drawn texts, filled up to the shape's vocabulary, and the
    published image processing.
    """
    tokenizer = _build_tokenizer(shape.vocabulary)
    image_processor = LlavaNextImageProcessor(
        size={"shortest_edge": DEFAULT_IMAGE_SIZE},
        crop_size={"height": DEFAULT_IMAGE_SIZE, "width": DEFAULT_IMAGE_SIZE},
        image_grid_pinpoints=PUBLISHED_GRID,
    )
    return LlavaNextProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
        image_token=IMAGE,
    )


def write_checkpoint(folder: Path, shape: Shape = SMALL, *, seed: int = 0) -> Path:
    """Write a checkpoint in bfloat16, as transformers and vLLM load it; returns the folder."""
    processor = build_processor(shape)
    torch.manual_seed(seed)
    model = LlavaNextForConditionalGeneration(build_config(shape))
    with torch.no_grad():
        # A logit of 0 is never the largest of 2,000, so no answer ends early or names an image.
        model.lm_head.weight[: len(SPECIAL_TOKENS)] = 0.0
    save_checkpoint(model, processor, folder)
    return folder


def write_configuration(folder: Path, shape: Shape) -> Path:
    """All of a checkpoint but its weights, for `--load-format dummy`; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    build_processor(shape).save_pretrained(folder)
    build_config(shape).save_pretrained(folder)
    return folder


def write_adapter(folder: Path, base: Path, *, seed: int = 1) -> Path:
    """A random LoRA adapter for a checkpoint of `write_checkpoint`, with a manifest; the folder."""
    model = LlavaNextForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    processor = LlavaNextProcessor.from_pretrained(base)
    torch.manual_seed(seed)
    lora = LoraConfig(
        r=16,
        lora_alpha=32,
        target_modules=r".*\blanguage_model\..*\.(q|k|v|o|gate|up|down)_proj",
        init_lora_weights=False,  # else it begins as an adapter that changes nothing
    )
    get_peft_model(model, lora).save_pretrained(folder, save_embedding_layers=False)
    answers = PromptEncoder(processor).answers
    manifest = AdapterManifest(
        fingerprint=f"random-{seed}",
        weights=fingerprint_checkpoint(folder),
        stage="sft",
        parent="",
        protocol="",
        definition=current_definition(),
        model=fingerprint_checkpoint(base),
        model_name=base.name,
        image_size=DEFAULT_IMAGE_SIZE,
        answer_tokens={"yes": answers.yes, "no": answers.no},
        inputs={},
        config={},
        counts={},
        validation={},
        # Random margins mean nothing; they are shown as they are.
        calibration={
            **{"slope": 1.0, "intercept": 0.0, "prior": 0.5},
            **{"ece_before": 1.0, "ece_after": 1.0},
        },
        versions={},
    )
    (folder / MANIFEST).write_text(manifest.to_json())
    return folder


def count_parameters(shape: Shape) -> int:
    """Parameters of a model of this shape, of which no weight is made."""
    with torch.device("meta"):
        model: Any = LlavaNextForConditionalGeneration(build_config(shape))
    return sum(parameter.numel() for parameter in model.parameters())


def _build_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(vocabulary, LEARNED_VOCABULARY),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    # An answer may be any id the model has, and every id must have a text.
    missing = vocabulary - tokenizer.get_vocab_size()
    tokenizer.add_tokens([f"<filler {number}>" for number in range(missing)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        unk_token=UNKNOWN,
        pad_token=PADDING,
        additional_special_tokens=[IMAGE, "[INST]", "[/INST]"],
        model_max_length=MAX_POSITIONS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _texts(num_names: int = 1000) -> Iterator[str]:
    for number in range(num_names):
        name = f"vocabulary {number}"
        yield f" {draw_title(name)} {draw_summary(name)} {draw_preference(name)}"
        yield f" {scoring.YES} {scoring.NO}"
    yield from prompt_phrases.FIXED_PHRASES * 3
