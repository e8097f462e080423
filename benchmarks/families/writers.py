"""Small text-only checkpoints with random weights, for a writer of its own.

    mistral-instruct, llama-3-instruct, qwen-2.5-instruct, qwen-3-thinking, gemma-3-text

Each has its family's configuration class and special tokens, and a chat template that renders one
user turn as the published one does: the content is a string, the template writes the beginning, and
that of Qwen 3 opens a thought unless it is told not to.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from benchmarks.families.tokenizers import byte_level_tokenizer, sentencepiece_tokenizer

HIDDEN = 64
LAYERS = 2
MAX_POSITIONS = 2048

_TURNS = "{%- for message in messages -%}"
_END = "{%- endfor -%}"


def _headed(opening: str, after_role: str, closing: str, prompt: str, *, bos: str = "") -> str:
    """Turns with a header of their own; `prompt` opens the answer."""
    return (
        f"{{{{ '{bos}' }}}}{_TURNS}{{{{ '{opening}' + message['role'] + '{after_role}' + "
        f"message['content'] + '{closing}' }}}}{_END}"
        f"{{%- if add_generation_prompt -%}}{prompt}{{%- endif -%}}"
    )


_CHATML = ("<|im_start|>", r"\n", r"<|im_end|>\n")

TEMPLATES = {
    # mistralai/Mistral-7B-Instruct-v0.2
    "mistral-instruct": (
        "{{ bos_token }}"
        + _TURNS
        + "{%- if message['role'] == 'user' -%}{{ ' [INST] ' + message['content'] + ' [/INST]' }}"
        + "{%- else -%}{{ ' ' + message['content'] + eos_token }}{%- endif -%}"
        + _END
    ),
    # meta-llama/Meta-Llama-3-8B-Instruct
    "llama-3-instruct": _headed(
        "<|start_header_id|>",
        r"<|end_header_id|>\n\n",
        "<|eot_id|>",
        r"{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
        bos="<|begin_of_text|>",
    ),
    # Qwen/Qwen2.5-7B-Instruct, without its constant system turn
    "qwen-2.5-instruct": _headed(*_CHATML, r"{{ '<|im_start|>assistant\n' }}"),
    # Qwen/Qwen3-8B
    "qwen-3-thinking": _headed(
        *_CHATML,
        r"{{ '<|im_start|>assistant\n' }}{%- if enable_thinking is defined and enable_thinking is "
        r"false -%}{{ '<think>\n\n</think>\n\n' }}{%- endif -%}",
    ),
    # google/gemma-3-1b-it, which refuses roles that do not alternate
    "gemma-3-text": (
        "{{ bos_token }}"
        + _TURNS
        + "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
        + "{{ raise_exception('roles must alternate') }}{%- endif -%}"
        + "{{ '<start_of_turn>' + (message['role'] | replace('assistant', 'model')) + '\n' + "
        + "(message['content'] | trim) + '<end_of_turn>\n' }}"
        + _END
        + "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
    ),
}


@dataclass(frozen=True, slots=True)
class Writer:
    """How one checkpoint is built."""

    tokenizer: Callable[[], Any]
    config: type[Any]


def _byte_level(*special: str, bos: str | None = None, end: str, adds: bool = False) -> Any:
    pad = special[0]
    names = {"eos_token": end, "pad_token": pad} | ({"bos_token": bos} if bos else {})
    return byte_level_tokenizer(special, adds=bos if adds else None, **names)


WRITERS = {
    "mistral-instruct": Writer(
        lambda: sentencepiece_tokenizer((), pad_token="</s>"),
        hf.MistralConfig,
    ),
    "llama-3-instruct": Writer(
        lambda: _byte_level(
            "<|end_of_text|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
            "<|eot_id|>", bos="<|begin_of_text|>", end="<|eot_id|>", adds=True,
        ),
        hf.LlamaConfig,
    ),
    "qwen-2.5-instruct": Writer(
        lambda: _byte_level("<|endoftext|>", "<|im_start|>", "<|im_end|>", end="<|im_end|>"),
        hf.Qwen2Config,
    ),
    "qwen-3-thinking": Writer(
        lambda: byte_level_tokenizer(
            ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), whole=("<think>", "</think>"),
            eos_token="<|im_end|>", pad_token="<|endoftext|>",
        ),
        hf.Qwen3Config,
    ),
    "gemma-3-text": Writer(
        lambda: _byte_level(
            "<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", bos="<bos>",
            end="<end_of_turn>", adds=True,
        ),
        hf.Gemma3TextConfig,
    ),
}  # fmt: skip


def write_writer(name: str, folder: Path, *, seed: int = 0) -> Path:
    """Write the checkpoint of this name in float32."""
    tokenizer = WRITERS[name].tokenizer()
    tokenizer.chat_template = TEMPLATES[name]
    torch.manual_seed(seed)
    config = WRITERS[name].config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=HIDDEN // 2,
        max_position_embeddings=MAX_POSITIONS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        initializer_range=0.2,  # so that texts differ
    )
    config.dtype = "float32"
    model = hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
