"""The demo tokenizer and processor: a small byte-level vocabulary and the published chat form.

The vocabulary is byte-level, so that any text can be encoded. The fixed phrases of
`services/core/prompt_phrases.py` are single tokens, so that a real prompt has few tokens.
"""

from collections.abc import Iterator
from random import Random

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlavaNextImageProcessor, LlavaNextProcessor, PreTrainedTokenizerFast

from model_training.demo.attributes import ATTRIBUTE_NAMES
from model_training.demo.sentences import (
    draw_question,
    preference_sentence,
    summary_sentence,
    updated_preference,
)
from model_training.demo.world import IMAGE_SIZE, draw_taste, draw_title
from services.core import prompt_phrases, scoring

PATCH_SIZE = 14
VOCABULARY_SIZE = 700
MAX_POSITIONS = 4096
BEGIN, END, UNKNOWN, PADDING, IMAGE = "<s>", "</s>", "<unk>", "<pad>", "<image>"
SPECIAL_TOKENS = (UNKNOWN, BEGIN, END, PADDING, IMAGE, "[INST]", "[/INST]")

# The form of published LLaVA-NeXT (Mistral): images before the text, one answer a turn. Nothing
# precedes [INST], so that no engine has to know whether it should add a beginning.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{ '[INST] ' }}
{%- for part in message['content'] | selectattr('type', 'equalto', 'image') -%}
{{ '<image>\\n' }}
{%- endfor -%}
{%- for part in message['content'] | selectattr('type', 'equalto', 'text') -%}
{{ part['text'] + ' [/INST]' }}
{%- endfor -%}
{%- elif message['role'] == 'assistant' -%}
{{ ' ' }}
{%- for part in message['content'] | selectattr('type', 'equalto', 'text') -%}
{%- generation -%}
{{ part['text'] + '</s>' }}
{%- endgeneration -%}
{%- endfor -%}
{%- endif -%}
{%- endfor -%}
"""


def _texts(num_items: int, seed: int) -> Iterator[str]:
    """The texts that the vocabulary is learned from: titles, sentences and questions."""
    rng = Random(f"vocabulary {seed}")
    for _ in range(num_items):
        attributes = draw_taste(rng)
        yield draw_title(attributes, rng)
        yield f"{summary_sentence(attributes)} {summary_sentence(attributes.seen(cover=False))}"
        likings = updated_preference({}, [attributes])
        later = [draw_taste(rng)] * 2
        taste = preference_sentence(updated_preference(likings, later))
        yield f"{taste} {taste}"
        yield draw_question(attributes, rng, attribute=rng.choice(ATTRIBUTE_NAMES))[0]
        yield f" {scoring.YES} {scoring.NO} {scoring.YES} {scoring.NO}"
    yield from prompt_phrases.FIXED_PHRASES * 3


def build_tokenizer(*, num_items: int = 4000, seed: int = 0) -> PreTrainedTokenizerFast:
    """Learn the vocabulary; the same arguments give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(prompt_phrases.FIXED_PHRASES),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(num_items, seed), trainer)
    tokenizer.add_tokens(
        [AddedToken(phrase, normalized=False) for phrase in prompt_phrases.FIXED_PHRASES]
    )
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


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaNextProcessor:
    """Tokenizer and image processor for covers of IMAGE_SIZE: one grid cell, so two equal tiles."""
    image_processor = LlavaNextImageProcessor(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_grid_pinpoints=[[IMAGE_SIZE, IMAGE_SIZE]],
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
