"""The base training: its chats ask what serving asks, its loss is on answers, its files load."""

from pathlib import Path
from random import Random

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForImageTextToText

from model_training.demo import train_base
from model_training.demo.attributes import Attributes
from model_training.demo.chats import (
    Chat,
    Mix,
    direct_chat,
    preference_chat,
    question_chat,
    summary_chat,
)
from model_training.demo.checkpoint import load_checkpoint
from model_training.demo.tokenizer import build_processor, build_tokenizer
from model_training.demo.world import DemoWorld
from services.core import prompt_phrases, prompts, scoring
from services.core.images import prepare_image
from services.core.records import Item, ItemId
from services.engines.rendering import chat_content, prompt_images

POOL = [Attributes("red", "star", "flat"), Attributes("blue", "boat", "dotted")]
MIX = Mix(unfamiliar_titles=0.5, new_tastes=0.5)
A_STAGE = train_base.Stage(2, 1e-3, 1, 1, 1, 1, 2, 1, MIX)


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer(num_items=500))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that was trained for two steps: it knows nothing, but it is whole."""
    folder = tmp_path_factory.mktemp("runs") / "base"
    train_base.run(folder, stages=[A_STAGE, A_STAGE], num_covers=8)
    return folder


def taught_text(processor, chat) -> str:
    tokenizer = processor.tokenizer
    ids = tokenizer([train_base.render(processor, chat)], return_tensors="pt")["input_ids"]
    opens = tokenizer.convert_tokens_to_ids("[/INST]")
    mask = train_base.answer_mask(ids, opens=opens, closes=tokenizer.eos_token_id)
    return tokenizer.decode(ids[mask])


def test_only_the_answer_and_its_end_are_taught(processor) -> None:
    chat = summary_chat(POOL, Random(1), with_cover=True, mix=MIX)

    assert taught_text(processor, chat) == f" {chat.turns[0][1]}</s>"


def test_every_answer_of_a_row_of_questions_is_taught(processor) -> None:
    chat = question_chat(POOL, Random(1), with_cover=True)

    answers = [answer for _, answer in chat.turns]
    assert set(answers) <= {scoring.YES, scoring.NO}
    assert taught_text(processor, chat) == "".join(f" {answer}</s>" for answer in answers)


def test_a_lesson_with_a_cover_is_rendered_as_the_processor_renders_it_for_serving(
    processor,
) -> None:
    cover = DemoWorld(seed=3, num_items=1, num_users=0).items[0].cover_png()
    item = Item(ItemId("item"), "The calm star in Lisbon", prepare_image(cover, 56))
    messages = prompts.summary_messages(item)
    text = processor.apply_chat_template(chat_content(messages), tokenize=False)
    served = processor(text=text, images=prompt_images(messages), return_tensors="pt")["input_ids"][
        0
    ]

    chat = Chat("summary", ((messages[0].text, "A."),), cover=0)
    taught = processor.tokenizer(train_base.render(processor, chat))["input_ids"]

    assert taught[: len(served)] == served.tolist()


def test_questions_are_answered_yes_about_half_of_the_time() -> None:
    rng = Random(3)
    answers = [
        answer for _ in range(200) for _, answer in question_chat(POOL, rng, with_cover=True).turns
    ]

    assert 0.42 < answers.count(scoring.YES) / len(answers) < 0.58


def test_no_lesson_ever_shows_the_scoring_question() -> None:
    rng = Random(5)
    chats = [
        question_chat(POOL, rng, with_cover=False),
        preference_chat(rng, MIX),
        direct_chat(rng, MIX),
    ]

    asked = " ".join(text for chat in chats for text, _ in chat.turns)
    assert prompt_phrases.SCORING_QUESTION not in asked
    assert prompt_phrases.SCORING_PREFERENCE_OPENS not in asked


def test_pooled_covers_are_what_the_processor_makes_of_a_prepared_cover(processor) -> None:
    pool, pixels = train_base.draw_covers(3, processor, seed=1)

    assert pixels.shape == (3, 3, 56, 56)
    assert len(pool) == 3
    assert pixels.float().std() > 0.1


def test_the_weights_carry_published_names(checkpoint: Path) -> None:
    with safe_open(checkpoint / "model.safetensors", "pt") as weights:
        names = set(weights.keys())

    prefixes = ("vision_tower.vision_model.", "multi_modal_projector.", "language_model.model.")
    others = {"image_newline", "language_model.lm_head.weight"}
    assert {name for name in names if not name.startswith(prefixes)} == others


def test_a_checkpoint_loads_as_any_llava_next_does_and_gives_the_same_logits(
    checkpoint: Path,
) -> None:
    ours, processor = load_checkpoint(checkpoint)
    auto = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    ids = processor.tokenizer("[INST] Hello [/INST]", return_tensors="pt")["input_ids"]

    assert torch.equal(ours(input_ids=ids).logits, auto(input_ids=ids).logits)


def test_written_weights_are_the_trained_ones_rounded_to_bfloat16(tmp_path: Path) -> None:
    from transformers import LlavaNextForConditionalGeneration

    from model_training.demo.checkpoint import build_config, save_checkpoint

    processor = build_processor(build_tokenizer(num_items=200))
    model = LlavaNextForConditionalGeneration(build_config(processor))
    save_checkpoint(model, processor, tmp_path)
    loaded, _ = load_checkpoint(tmp_path)

    written = dict(loaded.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(written[name], parameter.to(torch.bfloat16).float()), name
