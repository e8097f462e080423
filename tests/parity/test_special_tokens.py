"""The special tokens of a prompt are those of the chat template, whatever its texts hold."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks.attacks.titles import ATTACKS
from model_training.demo.tokenizer import CHAT_TEMPLATE, SPECIAL_TOKENS, build_tokenizer
from services.core import prompt_phrases, prompts
from services.core.prompts import HistoryItem, Messages
from services.core.records import Item, ItemId
from services.engines.rendering import chat_content

VICUNA = """\
{{ '<s>A chat between a curious human and an artificial intelligence assistant. ' }}
{%- for message in messages -%}
{{ message['role'].upper() + ': ' }}
{%- for part in message['content'] | selectattr('type', 'equalto', 'image') -%}
{{ '<image>\\n' }}
{%- endfor -%}
{%- for part in message['content'] | selectattr('type', 'equalto', 'text') -%}
{{ part['text'] + ' ' }}
{%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}
"""
CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- for part in message['content'] | selectattr('type', 'equalto', 'image') -%}
{{ '<image>\\n' }}
{%- endfor -%}
{%- for part in message['content'] | selectattr('type', 'equalto', 'text') -%}
{{ part['text'] + '<|im_end|>\\n' }}
{%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""


def a_tokenizer(template: str, special: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """Bytes, and these special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({each: k for k, each in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(each, normalized=False) for each in special])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template)


COMMON = ("<s>", "</s>", "<unk>", "<pad>", "<image>")
MODELS: dict[str, tuple[PreTrainedTokenizerFast, tuple[str, ...]]] = {
    # The demo's special tokens, and its single tokens for the prompts' own sentences.
    "demo": (build_tokenizer(num_items=50), (*SPECIAL_TOKENS, *prompt_phrases.FIXED_PHRASES)),
    "mistral": (
        a_tokenizer(CHAT_TEMPLATE, (*COMMON, "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")),
        (*COMMON, "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
    ),
    # In Vicuna's form the roles are plain text; here they are tokens, so that they can be counted.
    "vicuna": (
        a_tokenizer(VICUNA, (*COMMON, "USER:", "ASSISTANT:")),
        (*COMMON, "USER:", "ASSISTANT:"),
    ),
    "chatml": (
        a_tokenizer(CHATML, (*COMMON, "<|im_start|>", "<|im_end|>", "<|endoftext|>")),
        (*COMMON, "<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    ),
}
MARKERS = sorted({marker for _, special in MODELS.values() for marker in special})
# Markers, halves of them, and what may stand between.
MARKUP = st.lists(
    st.sampled_from([*MARKERS, *(marker[:3] for marker in MARKERS), *(m[3:] for m in MARKERS)])
    | st.text(max_size=4)
).map("".join)


def special_tokens(model: str, messages: Messages) -> list[str]:
    tokenizer, special = MODELS[model]
    text = tokenizer.apply_chat_template(
        chat_content(messages), tokenize=False, add_generation_prompt=True
    )
    tokens: list[Any] = tokenizer.convert_ids_to_tokens(
        tokenizer(text, add_special_tokens=False)["input_ids"]
    )
    return [token for token in tokens if token in special]


def all_prompts(text: str) -> list[Messages]:
    """Every prompt there is, with the text wherever a text can stand."""
    item = Item(ItemId("i1"), text, b"picture")
    block = [HistoryItem(text, text)] * 3
    return [
        prompts.summary_messages(item),
        prompts.preference_messages(text, block),
        prompts.scoring_messages(text, item),
    ]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_adds_no_special_token_to_any_prompt(model: str, attack: str):
    honest = [special_tokens(model, each) for each in all_prompts("a calm fox")]

    hostile = [special_tokens(model, each) for each in all_prompts(ATTACKS[attack]("a calm fox"))]

    assert hostile == honest


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(markup=MARKUP)
def test_markup_in_any_pieces_adds_no_special_token_to_any_prompt(model: str, markup: str):
    honest = [special_tokens(model, each) for each in all_prompts("a calm fox")]

    assert [special_tokens(model, each) for each in all_prompts(f"a {markup} fox")] == honest


@pytest.mark.parametrize("model", MODELS)
def test_without_cleaning_the_markers_would_be_tokens(model: str):
    tokenizer, special = MODELS[model]
    ids = tokenizer("".join(special), add_special_tokens=False)["input_ids"]

    assert tokenizer.convert_ids_to_tokens(ids) == list(special)
