"""The demo tokenizer: any text survives, fixed phrases cost one token, answers are one token."""

import pytest
from PIL import Image
from transformers import AutoProcessor, LlavaNextProcessor

from model_training.demo.attributes import VALUES
from model_training.demo.tokenizer import build_processor, build_tokenizer
from services.core import prompt_phrases
from services.core.scoring import find_answer_tokens


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> LlavaNextProcessor:
    folder = tmp_path_factory.mktemp("processor")
    build_processor(build_tokenizer()).save_pretrained(folder)
    return AutoProcessor.from_pretrained(folder)


def a_chat(text: str = "What is it?", *, answer: str | None = None, image: bool = True):
    parts = [{"type": "image"}] if image else []
    chat = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
    if answer is not None:
        chat.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return chat


def test_a_prompt_takes_the_published_form_with_images_before_the_text(processor) -> None:
    text = processor.apply_chat_template(a_chat("What is it?", answer="A star."), tokenize=False)

    assert text == "[INST] <image>\nWhat is it? [/INST] A star.</s>"


def test_yes_and_no_are_answered_with_one_token_each(processor) -> None:
    def render(answer: str | None) -> list[int]:
        text = processor.apply_chat_template(
            a_chat(answer=answer), tokenize=False, add_generation_prompt=answer is None
        )
        return processor.tokenizer(text)["input_ids"]

    answers = find_answer_tokens(render)

    assert processor.tokenizer.decode([answers.yes]) == " Yes"
    assert processor.tokenizer.decode([answers.no]) == " No"


@pytest.mark.parametrize("phrase", prompt_phrases.FIXED_PHRASES)
def test_a_fixed_phrase_of_the_prompts_is_one_token_and_survives_decoding(
    processor, phrase: str
) -> None:
    ids = processor.tokenizer(phrase)["input_ids"]

    assert len(ids) == 1
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == phrase


@pytest.mark.parametrize(
    "text", ["A quiet zoo, 1987!", "naïve café — 東京 🎈", "tab\tand\nnewline", ""]
)
def test_any_text_survives_encoding_and_decoding(processor, text: str) -> None:
    ids = processor.tokenizer(text)["input_ids"]

    assert processor.tokenizer.unk_token_id not in ids
    assert processor.tokenizer.decode(ids) == text


def test_every_attribute_value_is_one_token_within_a_sentence(processor) -> None:
    for value in (value for values in VALUES.values() for value in values):
        assert len(processor.tokenizer(f" {value}")["input_ids"]) == 1


def test_a_prepared_cover_takes_as_many_tokens_as_the_model_has_features_for(processor) -> None:
    text = processor.apply_chat_template(a_chat(), tokenize=False)
    encoded = processor(text=text, images=[Image.new("RGB", (56, 56))], return_tensors="pt")

    assert (encoded["input_ids"] == processor.image_token_id).sum() == 4 * 4 + 4 * 4 + 4
    assert encoded["pixel_values"].shape == (1, 2, 3, 56, 56)


def test_nothing_is_put_before_the_prompt(processor) -> None:
    text = processor.apply_chat_template(a_chat(image=False), tokenize=False)

    with_special = processor.tokenizer(text)["input_ids"]
    without = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert with_special == without
