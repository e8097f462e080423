"""Small checkpoints of every model family that is supported, with random weights, made on the spot.

    mistral, old-mistral, vicuna, llama-3, chatml, qwen-72b    LLaVA-NeXT, by its chat template
    onevision, qwen-2.5, qwen-3, internvl-3, gemma-3, mistral-3, pixtral, smolvlm

Each has its family's own configuration class, processor, image grid and special tokens, a chat
template that renders what the published one does, and weights in several files under published
names. Only the sizes of the layers are small.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from benchmarks.families import templates
from benchmarks.families.tokenizers import byte_level_tokenizer, sentencepiece_tokenizer
from benchmarks.support.random_model import PUBLISHED_GRID
from services.core.images import DEFAULT_IMAGE_SIZE

HIDDEN = 128
HEADS, KV_HEADS = 2, 1
VISION_HIDDEN, VISION_HEADS = 64, 2
LAYERS = 2
MAX_POSITIONS = 4096
MAX_SHARD = "2MB"
# How transformers 5 writes the names of a vision tower, and how those of CLIP and SigLIP are
# published; vLLM reads the latter.
SAVED_TOWER, CLIP_TOWER = "vision_tower.", "vision_tower.vision_model."

_CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@dataclass(frozen=True, slots=True)
class Family:
    """How a checkpoint of one family is built: its tokenizer, processor, configuration, template.

    `published` is what the language model of a published checkpoint has: layers, heads of keys and
    values, and numbers in each. `tower` is what its vision tower's weights are named by.
    `in_mistral_format` if it is published in that format too, in the same folder.
    """

    tokenizer: Callable[[], Any]
    processor: Callable[[Any], Any]
    config: Callable[[Any], Any]
    template: str
    published: tuple[int, int, int]
    tower: str = SAVED_TOWER
    in_mistral_format: bool = False


def write_checkpoint(name: str, folder: Path, *, seed: int = 0) -> Path:
    """Write the checkpoint of this name in float32, as transformers and vLLM load it."""
    processor = build_processor(name)
    torch.manual_seed(seed)
    config = FAMILIES[name].config(processor.tokenizer)
    config.dtype = "float32"
    model = hf.AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1 and not weight.any():  # Gemma's projector, which is loaded anyway
                weight.normal_(std=HIDDEN**-0.5)
    model.save_pretrained(folder, max_shard_size=MAX_SHARD)
    _name_tower(folder, FAMILIES[name].tower)
    processor.save_pretrained(folder)
    if FAMILIES[name].in_mistral_format:
        _add_mistral_format(folder)
    return folder


def _add_mistral_format(folder: Path) -> None:
    """The files by which Mistral's format is known: a whole tokenizer, next to no weights."""
    tokenizer = files("mistral_common") / "data" / "tekken_240911.json"
    (folder / "tekken.json").write_bytes(tokenizer.read_bytes())
    (folder / "params.json").write_text("{}", encoding="utf-8")
    save_file({"norm.weight": torch.ones(HIDDEN)}, folder / "consolidated.safetensors")


def _name_tower(folder: Path, tower: str) -> None:
    """Give the weights of the vision tower their published names, in every file and the index."""

    def published(name: str) -> str:
        return tower + name.removeprefix(SAVED_TOWER) if name.startswith(SAVED_TOWER) else name

    for file in folder.glob("*.safetensors"):
        weights = {published(name): weight for name, weight in load_file(file).items()}
        save_file(weights, file, metadata={"format": "pt"})
    path = folder / SAFE_WEIGHTS_INDEX_NAME
    index = json.loads(path.read_text(encoding="utf-8"))
    index["weight_map"] = {published(name): file for name, file in index["weight_map"].items()}
    path.write_text(json.dumps(index, indent=2), encoding="utf-8")


def build_processor(name: str) -> Any:
    """The processor of the checkpoint of this name, with its tokenizer and chat template."""
    family = FAMILIES[name]
    tokenizer = family.tokenizer()
    processor = family.processor(tokenizer)
    processor.chat_template = tokenizer.chat_template = family.template
    return processor


# --- parts ---------------------------------------------------------------------------------------


def _text(tokenizer: Any, **options: Any) -> dict[str, Any]:
    """A language model's sizes and token ids."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HIDDEN // HEADS,
        "max_position_embeddings": MAX_POSITIONS,
        # With the usual 0.02 a model this small gives one answer to all.
        "initializer_range": HIDDEN**-0.5,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **options,
    }


def _vision(**options: Any) -> dict[str, Any]:
    """A vision tower's sizes."""
    return {
        "hidden_size": VISION_HIDDEN,
        "intermediate_size": 2 * VISION_HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": VISION_HEADS,
        **options,
    }


def _id(tokenizer: Any, token: str) -> int:
    number: int = tokenizer.convert_tokens_to_ids(token)
    return number


# --- LLaVA-NeXT ----------------------------------------------------------------------------------


def _llava_processor(tokenizer: Any) -> Any:
    side = DEFAULT_IMAGE_SIZE
    return hf.LlavaNextProcessor(
        image_processor=hf.LlavaNextImageProcessor(
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            image_grid_pinpoints=PUBLISHED_GRID,
        ),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
    )


def _llava(text_config: type[Any], **options: Any) -> Callable[[Any], Any]:
    def build(tokenizer: Any) -> Any:
        return hf.LlavaNextConfig(
            vision_config=hf.CLIPVisionConfig(
                **_vision(image_size=DEFAULT_IMAGE_SIZE, patch_size=14, projection_dim=64)
            ),
            text_config=text_config(**_text(tokenizer, **options)),
            image_token_index=_id(tokenizer, "<image>"),
            image_grid_pinpoints=PUBLISHED_GRID,
            tie_word_embeddings=False,
            architectures=["LlavaNextForConditionalGeneration"],
        )

    return build


def _mistral_tokenizer() -> Any:
    return sentencepiece_tokenizer(("<image>", "<pad>"), pad_token="<pad>")


def _chatml_tokenizer(*images: str, **names: Any) -> Callable[[], Any]:
    def build() -> Any:
        return byte_level_tokenizer(
            (*_CHATML_TOKENS, *images),
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
            extra_special_tokens=names,
        )

    return build


def _llama_3_tokenizer() -> Any:
    begin = "<|begin_of_text|>"
    return byte_level_tokenizer(
        (begin, "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<pad>", "<image>"),
        adds=begin,
        bos_token=begin,
        eos_token="<|eot_id|>",
        pad_token="<pad>",
    )


_MISTRAL = _llava(hf.MistralConfig, sliding_window=None)
_LLAMA = _llava(hf.LlamaConfig)
_QWEN = _llava(hf.Qwen2Config)


# --- the others ----------------------------------------------------------------------------------


def _onevision_processor(tokenizer: Any) -> Any:
    side = 384
    return hf.LlavaOnevisionProcessor(
        image_processor=hf.LlavaOnevisionImageProcessor(
            size={"height": side, "width": side},
            image_grid_pinpoints=_onevision_grid(),
        ),
        tokenizer=tokenizer,
        video_processor=hf.LlavaOnevisionVideoProcessor(),
        num_image_tokens=729,
        vision_feature_select_strategy="full",
    )


def _onevision_grid() -> list[list[int]]:
    sides = range(384, 7 * 384, 384)
    return [[height, width] for height in sides for width in sides]


def _onevision(tokenizer: Any) -> Any:
    return hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(
            **_vision(image_size=384, patch_size=14), vision_use_head=False
        ),
        text_config=hf.Qwen2Config(**_text(tokenizer)),
        image_token_index=_id(tokenizer, "<image>"),
        video_token_index=_id(tokenizer, "<video>"),
        image_grid_pinpoints=_onevision_grid(),
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
        architectures=["LlavaOnevisionForConditionalGeneration"],
    )


_QWEN_IMAGES = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def _qwen_ids(tokenizer: Any) -> dict[str, int]:
    return {
        "image_token_id": _id(tokenizer, "<|image_pad|>"),
        "video_token_id": _id(tokenizer, "<|video_pad|>"),
        "vision_start_token_id": _id(tokenizer, "<|vision_start|>"),
        "vision_end_token_id": _id(tokenizer, "<|vision_end|>"),
    }


def _qwen_2_5_processor(tokenizer: Any) -> Any:
    return hf.Qwen2_5_VLProcessor(
        image_processor=hf.Qwen2VLImageProcessor(patch_size=14, merge_size=2),
        tokenizer=tokenizer,
        video_processor=hf.Qwen2VLVideoProcessor(patch_size=14, merge_size=2),
    )


def _qwen_2_5(tokenizer: Any) -> Any:
    rope = {"rope_type": "default", "mrope_section": [8, 12, 12], "rope_theta": 1e6}
    text = _text(tokenizer, rope_parameters=rope)
    del text["head_dim"]
    return hf.Qwen2_5_VLConfig(
        vision_config={
            "depth": LAYERS,
            "hidden_size": VISION_HIDDEN,
            "intermediate_size": 2 * VISION_HIDDEN,
            "num_heads": VISION_HEADS,
            "out_hidden_size": HIDDEN,
            "fullatt_block_indexes": [LAYERS - 1],
        },
        text_config=text,
        tie_word_embeddings=False,
        architectures=["Qwen2_5_VLForConditionalGeneration"],
        **_qwen_ids(tokenizer),
    )


def _qwen_3_processor(tokenizer: Any) -> Any:
    image = {"patch_size": 16, "merge_size": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return hf.Qwen3VLProcessor(
        image_processor=hf.Qwen2VLImageProcessor(**image),
        tokenizer=tokenizer,
        video_processor=hf.Qwen3VLVideoProcessor(patch_size=16),
    )


def _qwen_3(tokenizer: Any) -> Any:
    rope = {
        "rope_type": "default",
        "mrope_section": [12, 10, 10],
        "mrope_interleaved": True,
        "rope_theta": 5e6,
    }
    return hf.Qwen3VLConfig(
        vision_config={
            "depth": LAYERS,
            "hidden_size": VISION_HIDDEN,
            "intermediate_size": 2 * VISION_HIDDEN,
            "num_heads": VISION_HEADS,
            "out_hidden_size": HIDDEN,
            "deepstack_visual_indexes": [0],
        },
        text_config=_text(tokenizer, rope_parameters=rope),
        tie_word_embeddings=False,
        architectures=["Qwen3VLForConditionalGeneration"],
        **_qwen_ids(tokenizer),
    )


def _internvl_processor(tokenizer: Any) -> Any:
    return hf.InternVLProcessor(
        image_processor=hf.GotOcr2ImageProcessor(
            size={"height": 448, "width": 448}, crop_to_patches=True, max_patches=12
        ),
        tokenizer=tokenizer,
        video_processor=hf.InternVLVideoProcessor(),
        image_seq_length=256,
    )


def _internvl(tokenizer: Any) -> Any:
    return hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(**_vision(attention_bias=True)),
        text_config=hf.Qwen2Config(**_text(tokenizer)),
        image_token_id=_id(tokenizer, "<IMG_CONTEXT>"),
        tie_word_embeddings=False,
        architectures=["InternVLForConditionalGeneration"],
    )


def _gemma_tokenizer() -> Any:
    special = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
    images = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")
    return byte_level_tokenizer(
        (*special, *images),
        adds="<bos>",
        whole=[number * "\n" for number in (1, 2, 3, 4)],  # vLLM looks for them
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens={
            "boi_token": images[0],
            "eoi_token": images[1],
            "image_token": images[2],
        },
    )


def _gemma_processor(tokenizer: Any) -> Any:
    return hf.Gemma3Processor(
        image_processor=hf.Gemma3ImageProcessor(size={"height": 896, "width": 896}),
        tokenizer=tokenizer,
        image_seq_length=256,
    )


def _gemma(tokenizer: Any) -> Any:
    return hf.Gemma3Config(
        vision_config=hf.SiglipVisionConfig(
            **_vision(image_size=896, patch_size=14), vision_use_head=False
        ),
        text_config=hf.Gemma3TextConfig(
            **_text(tokenizer, tie_word_embeddings=True),
            query_pre_attn_scalar=HIDDEN // HEADS,
            sliding_window=1024,
        ),
        mm_tokens_per_image=256,
        boi_token_index=_id(tokenizer, "<start_of_image>"),
        eoi_token_index=_id(tokenizer, "<end_of_image>"),
        image_token_index=_id(tokenizer, "<image_soft_token>"),
        eos_token_id=[_id(tokenizer, "<eos>"), _id(tokenizer, "<end_of_turn>")],
        architectures=["Gemma3ForConditionalGeneration"],
    )


def _pixtral_tokenizer() -> Any:
    special = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<pad>")
    return byte_level_tokenizer(
        (*special, "[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        adds="<s>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )


def _pixtral_processor(patch_size: int, merge: int) -> Callable[[Any], Any]:
    def build(tokenizer: Any) -> Any:
        return hf.PixtralProcessor(
            image_processor=hf.PixtralImageProcessor(
                patch_size={"height": patch_size, "width": patch_size},
                size={"longest_edge": 1024 if merge == 1 else 1540},
            ),
            tokenizer=tokenizer,
            patch_size=patch_size,
            spatial_merge_size=merge,
        )

    return build


def _pixtral_tower(patch_size: int, size: int) -> Any:
    return hf.PixtralVisionConfig(
        **_vision(image_size=size, patch_size=patch_size),
        head_dim=VISION_HIDDEN // VISION_HEADS,
    )


def _mistral_3(tokenizer: Any) -> Any:
    return hf.Mistral3Config(
        vision_config=_pixtral_tower(14, 1540),
        text_config=hf.MistralConfig(**_text(tokenizer, sliding_window=None)),
        image_token_index=_id(tokenizer, "[IMG]"),
        spatial_merge_size=2,
        tie_word_embeddings=False,
        architectures=["Mistral3ForConditionalGeneration"],
    )


def _pixtral(tokenizer: Any) -> Any:
    return hf.LlavaConfig(
        vision_config=_pixtral_tower(16, 1024),
        text_config=hf.MistralConfig(**_text(tokenizer, sliding_window=None)),
        image_token_index=_id(tokenizer, "[IMG]"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=1,
        tie_word_embeddings=False,
        architectures=["LlavaForConditionalGeneration"],
    )


def _smolvlm_tokenizer() -> Any:
    special = (*_CHATML_TOKENS, "<end_of_utterance>", "<fake_token_around_image>", "<image>")
    rows = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
    return byte_level_tokenizer(
        (*special, "<global-img>", *rows),
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
    )


def _smolvlm_processor(tokenizer: Any) -> Any:
    return hf.SmolVLMProcessor(
        image_processor=hf.SmolVLMImageProcessor(
            size={"longest_edge": 4 * 512}, max_image_size={"longest_edge": 512}
        ),
        tokenizer=tokenizer,
        video_processor=hf.SmolVLMVideoProcessor(),
        image_seq_len=64,
    )


def _smolvlm(tokenizer: Any) -> Any:
    return hf.SmolVLMConfig(
        # 32 patches a side, as in the 256M and the 500M. The 2.2B has 27, and there vLLM 0.32
        # and transformers 5.19 round the places of patches differently (i / 27 and i * (1 / 27)).
        vision_config=_vision(image_size=512, patch_size=16),
        text_config=hf.LlamaConfig(**_text(tokenizer)),
        image_token_id=_id(tokenizer, "<image>"),
        scale_factor=4,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        architectures=["SmolVLMForConditionalGeneration"],
    )


def _llava_next(
    tokenizer: Callable[[], Any],
    config: Callable[[Any], Any],
    template: str,
    published: tuple[int, int, int],
) -> Family:
    return Family(tokenizer, _llava_processor, config, template, published, CLIP_TOWER)


FAMILIES: Mapping[str, Family] = {
    "mistral": _llava_next(_mistral_tokenizer, _MISTRAL, templates.MISTRAL, (32, 8, 128)),
    "old-mistral": _llava_next(_mistral_tokenizer, _MISTRAL, templates.OLD_MISTRAL, (32, 8, 128)),
    "vicuna": _llava_next(_mistral_tokenizer, _LLAMA, templates.VICUNA, (32, 32, 128)),
    "llama-3": _llava_next(_llama_3_tokenizer, _LLAMA, templates.LLAMA_3, (32, 8, 128)),
    "chatml": _llava_next(_chatml_tokenizer("<image>"), _LLAMA, templates.CHATML, (60, 8, 128)),
    "qwen-72b": _llava_next(_chatml_tokenizer("<image>"), _QWEN, templates.QWEN_72B, (80, 8, 128)),
    "onevision": Family(
        _chatml_tokenizer("<image>", "<video>"),
        _onevision_processor,
        _onevision,
        templates.ONEVISION,
        (28, 4, 128),
        CLIP_TOWER,
    ),
    "qwen-2.5": Family(
        _chatml_tokenizer(*_QWEN_IMAGES),
        _qwen_2_5_processor,
        _qwen_2_5,
        templates.QWEN_2_5,
        (28, 4, 128),
    ),
    "qwen-3": Family(
        _chatml_tokenizer(*_QWEN_IMAGES), _qwen_3_processor, _qwen_3, templates.QWEN_3, (36, 8, 128)
    ),
    "internvl-3": Family(
        _chatml_tokenizer(
            "<img>",
            "</img>",
            "<IMG_CONTEXT>",
            "<video>",
            start_image_token="<img>",
            end_image_token="</img>",
            context_image_token="<IMG_CONTEXT>",
            video_token="<video>",
        ),
        _internvl_processor,
        _internvl,
        templates.INTERNVL_3,
        (28, 4, 128),
    ),
    "gemma-3": Family(
        _gemma_tokenizer, _gemma_processor, _gemma, templates.GEMMA_3, (34, 4, 256), CLIP_TOWER
    ),
    "mistral-3": Family(
        _pixtral_tokenizer,
        _pixtral_processor(14, 2),
        _mistral_3,
        templates.PIXTRAL,
        (40, 8, 128),
        in_mistral_format=True,
    ),
    "pixtral": Family(
        _pixtral_tokenizer, _pixtral_processor(16, 1), _pixtral, templates.PIXTRAL, (40, 8, 128)
    ),
    "smolvlm": Family(
        _smolvlm_tokenizer, _smolvlm_processor, _smolvlm, templates.SMOLVLM, (32, 5, 64)
    ),
}
