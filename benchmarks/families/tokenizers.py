"""Tokenizers for small checkpoints that split text as the published ones do.

sentencepiece_tokenizer   the real `tokenizer.model` of Mistral 7B, which `mistral-common` ships
byte_level_tokenizer      a small byte-level BPE with the splitting rule of Llama 3 and Qwen:
                          several newlines are one token, a word takes the space before it along
"""

import json
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from benchmarks.support.synthetic_catalogue import draw_preference, draw_summary, draw_title
from services.core import prompt_phrases, scoring

VOCABULARY = 1500
# Contractions, words with the space before them, digits one by one, punctuation, newlines, spaces.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def sentencepiece_tokenizer(added: Sequence[str], *, pad_token: str) -> Any:
    """Mistral's own, with `added` special tokens after its 32,000; it adds the beginning itself."""
    tokens = {0: "<unk>", 1: "<s>", 2: "</s>"} | dict(enumerate(added, start=32_000))
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "added_tokens_decoder": {
            str(number): {"content": token, "special": True, "normalized": False}
            for number, token in tokens.items()
        },
        **{"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": pad_token},
    }
    with tempfile.TemporaryDirectory() as folder:
        model = files("mistral_common") / "data" / "tokenizer.model.v1"
        (Path(folder) / "tokenizer.model").write_bytes(model.read_bytes())
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(settings))
        return AutoTokenizer.from_pretrained(folder)


def byte_level_tokenizer(
    special: Sequence[str], *, adds: str | None = None, whole: Sequence[str] = (), **names: Any
) -> PreTrainedTokenizerFast:
    """`special` tokens first; `adds` is the beginning that it writes before every text; `whole` are
    never split and not special.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in whole])
    if adds is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{adds} $A", special_tokens=[(adds, tokenizer.token_to_id(adds))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names
    )


def _texts() -> list[str]:
    words = [f"{scoring.YES} {scoring.NO}", scoring.YES, scoring.NO]
    texts = ["\n\n", "\n\n\n", " \n", *words] * 50
    for number in range(300):
        name = f"vocabulary {number}"
        texts.append(f"{draw_title(name)}\n{draw_summary(name)}\n\n{draw_preference(name)}")
    return texts + list(prompt_phrases.FIXED_PHRASES) * 3
