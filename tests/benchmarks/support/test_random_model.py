"""The checkpoint that speeds are measured on has the size and the prompts it is said to have."""

from pathlib import Path

import pytest
from transformers import LlavaNextProcessor

from benchmarks.support.random_model import (
    MAX_POSITIONS,
    SEVEN_B,
    SMALL,
    build_processor,
    count_parameters,
    write_configuration,
)
from benchmarks.support.synthetic_catalogue import draw_items, draw_preference
from services.core.prompts import scoring_messages
from services.engines.prompt_encoding import PromptEncoder


@pytest.fixture(scope="module")
def processor() -> LlavaNextProcessor:
    return build_processor(SMALL)


def test_the_small_model_has_33_million_parameters():
    assert round(count_parameters(SMALL) / 1e6) == 33


def test_the_large_one_has_the_shape_of_a_published_llava_next_on_mistral():
    assert round(count_parameters(SEVEN_B) / 1e9, 1) == 7.6


def test_a_square_cover_is_1176_tokens_as_in_published_checkpoints(processor):
    [item] = draw_items("any", 1)
    messages = scoring_messages(draw_preference("any"), item)

    ids = PromptEncoder(processor).encode(messages).tokens["input_ids"]

    assert int((ids == processor.image_token_id).sum()) == 1176
    assert len(ids) < MAX_POSITIONS


def test_preferences_have_a_realistic_length(processor):
    texts = [draw_preference(f"user {number}") for number in range(50)]
    lengths = [len(processor.tokenizer(text)["input_ids"]) for text in texts]
    assert min(lengths) >= 55
    assert max(lengths) <= 100


def test_yes_and_no_are_single_tokens_of_a_vocabulary_that_the_model_has(processor):
    answers = PromptEncoder(processor).answers
    written = [processor.tokenizer.decode([token]) for token in (answers.yes, answers.no)]
    assert [word.strip() for word in written] == ["Yes", "No"]
    assert len(processor.tokenizer) == SMALL.vocabulary


def test_every_id_that_the_large_model_can_write_has_a_text():
    tokenizer = build_processor(SEVEN_B).tokenizer
    assert len(tokenizer) == SEVEN_B.vocabulary
    assert tokenizer.decode([SEVEN_B.vocabulary - 1])


def test_the_same_seed_draws_the_same_tokenizer(processor):
    assert build_processor(SMALL).tokenizer.get_vocab() == processor.tokenizer.get_vocab()


def test_a_configuration_without_weights_is_all_that_a_dummy_server_needs(tmp_path: Path):
    files = {path.name for path in write_configuration(tmp_path / "model", SMALL).iterdir()}
    assert {"config.json", "tokenizer.json", "processor_config.json"} <= files
    assert not any(name.endswith(".safetensors") for name in files)
