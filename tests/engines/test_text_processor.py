"""Text-only models as writers: their own templates, their own tokens, texts alone."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from benchmarks.families.writers import WRITERS, write_writer
from services.core.errors import EngineRefused, ModelUnusable
from services.core.prompts import (
    GenerationLimits,
    HistoryItem,
    Message,
    preference_messages,
    summary_messages,
)
from services.core.records import Item, ItemId
from services.engines.checkpoints import identify
from services.engines.local.engine import LocalEngine
from services.engines.models.model_files import load_processor, takes_images
from services.engines.open_engine import open_engine
from services.engines.prompt_encoding import PromptEncoder
from services.engines.text_processor import TextProcessor
from services.engines.vllm_server.command import ServeOptions, build_command

PROMPT = preference_messages("Likes calm things.", [HistoryItem("A red fox", "A fox in the snow.")])


# Mistral's own tokenizer comes with vLLM.
OF_VLLM = {"mistral-instruct": [pytest.mark.vllm]}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=OF_VLLM.get(name, ())) for name in WRITERS]
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_writer(request.param, tmp_path_factory.mktemp("writer") / request.param)


def ids_by_the_tokenizer(folder: Path) -> list[int]:
    """As the model's authors make them; without a thought where the template has one."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": PROMPT[0].text}]
    ids: list[int] = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, enable_thinking=False, return_dict=True
    )["input_ids"]
    return ids


def test_the_token_ids_are_those_of_its_own_tokenizer(folder: Path):
    encoder = PromptEncoder(load_processor(str(folder), texts_only=True), texts_only=True)

    ids = encoder.encode(PROMPT).tokens["input_ids"].tolist()

    assert ids == ids_by_the_tokenizer(folder)


def test_a_text_only_model_is_a_writer_and_no_summarizer(folder: Path):
    assert not takes_images(str(folder))
    with pytest.raises(ModelUnusable, match=r"takes no images; .*MSR_WRITER"):
        load_processor(str(folder))


async def test_it_writes_the_same_text_alone_and_among_others(folder: Path):
    engine = await open_engine("local", model=str(folder), texts_only=True)
    prompts = [preference_messages("", [HistoryItem(f"A fox {'x' * k}", "")]) for k in range(5)]
    limits = GenerationLimits(12)
    try:
        alone = [await engine.generate(prompt, limits) for prompt in prompts]
        together = await asyncio.gather(*(engine.generate(p, limits) for p in prompts))
    finally:
        await engine.close()

    assert together == alone
    assert len(set(alone)) > 1


async def test_it_refuses_an_image_and_names_the_cause(folder: Path):
    from services.core.images import blank_image

    engine = LocalEngine.load(str(folder), texts_only=True)
    messages = summary_messages(Item(ItemId("i1"), "A fox", blank_image(56)))
    try:
        with pytest.raises(EngineRefused, match="reads text alone"):
            await engine.generate(messages, GenerationLimits(4))
    finally:
        await engine.close()


def test_vllm_serves_it_without_options_for_images(folder: Path):
    arguments = build_command(ServeOptions(str(folder), ()), "cpu").arguments

    assert "--limit-mm-per-prompt" not in arguments
    assert f"msr:model:{identify(str(folder)).model}" in arguments


def test_a_model_that_can_think_is_told_not_to(tmp_path: Path):
    folder = write_writer("qwen-3-thinking", tmp_path / "model")
    processor = load_processor(str(folder), texts_only=True)

    content = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    text = processor.apply_chat_template(content, tokenize=False)

    assert text.endswith("<think>\n\n</think>\n\n")


def test_a_base_model_without_a_chat_template_is_refused(tmp_path: Path):
    folder = write_writer("qwen-2.5-instruct", tmp_path / "model")
    (folder / "chat_template.jinja").unlink()

    with pytest.raises(ModelUnusable, match=r"no chat template: .*chat_template\.jinja"):
        load_processor(str(folder), texts_only=True)


@pytest.mark.parametrize(
    ("template", "shows"),
    [
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "string"),
        (
            "{% for m in messages %}{% for p in m['content'] %}{{ p['text'] }}{% endfor %}"
            "{% endfor %}",
            "parts",
        ),
    ],
)
def test_content_is_given_in_the_form_that_the_template_takes(
    template: str, shows: str, tmp_path: Path
):
    tokenizer: Any = AutoTokenizer.from_pretrained(write_writer("qwen-2.5-instruct", tmp_path))
    tokenizer.chat_template = template

    text = TextProcessor(tokenizer).apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": f"as {shows}"}]}], tokenize=False
    )

    assert text == f"as {shows}"


def test_a_template_that_shows_no_text_is_refused(tmp_path: Path):
    tokenizer: Any = AutoTokenizer.from_pretrained(write_writer("qwen-2.5-instruct", tmp_path))
    tokenizer.chat_template = "{{ 'nothing of it' }}"

    with pytest.raises(ModelUnusable, match="shows neither a text nor a part"):
        TextProcessor(tokenizer)


def test_messages_of_both_roles_are_rendered(folder: Path):
    messages = (Message("user", "Hello"), Message("assistant", "Yes"))
    processor = load_processor(str(folder), texts_only=True)

    text = processor.apply_chat_template(
        [{"role": m.role, "content": [{"type": "text", "text": m.text}]} for m in messages],
        tokenize=False,
        add_generation_prompt=False,
    )

    assert "Hello" in text
    assert "Yes" in text
