"""What a model of each family reads is, token for token, what its authors meant."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
import torch

from benchmarks.families.checkpoints import FAMILIES, build_processor
from benchmarks.families.road import encoded_prompts, ids_by_processor
from model_training.finetune.collation import IGNORED, AnswerCollator, training_row
from model_training.finetune.stages.dpo import PreferenceCollator
from services.core.prompts import Message
from services.engines.prompt_encoding import PromptEncoder
from services.engines.rendering import chat_content
from tests.engines.conftest import a_prompt

# They need what vLLM brings: torchvision, and the tokenizer that `mistral-common` ships.
pytestmark = pytest.mark.vllm

P = "What is it?"
VICUNA = "USER: <image>\nWhat is it? ASSISTANT:"
MISTRAL = "[INST] <image>\nWhat is it? [/INST]"
CHATML = "<|im_start|>user\n{}What is it?<|im_end|>\n<|im_start|>assistant\n"
# What the published templates make of an image and P, and what they add for the answer Yes.
RENDERED: Mapping[str, tuple[str, str]] = {
    "mistral": (MISTRAL, MISTRAL + " Yes</s> "),
    "old-mistral": (MISTRAL, MISTRAL + r" Yes<\s> "),
    "vicuna": (VICUNA, VICUNA + " Yes "),
    "llama-3": (
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat is it?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat is it?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n\nYes<|eot_id|>",
    ),
    "chatml": (CHATML.format("<image>\n"), CHATML.format("<image>\n") + "Yes<|im_end|>\n"),
    "qwen-72b": (CHATML.format("<image>\n"), CHATML.format("<image>\n") + "\nYes<|im_end|>\n"),
    "onevision": (
        "<|im_start|>user <image>\nWhat is it?<|im_end|><|im_start|>assistant\n",
        "<|im_start|>user <image>\nWhat is it?<|im_end|><|im_start|>assistant \nYes<|im_end|>",
    ),
}


@cache
def processor(name: str) -> Any:
    return build_processor(name)


@pytest.mark.parametrize("name", RENDERED)
def test_the_templates_render_what_the_published_ones_do(name: str):
    asked = (Message("user", P, a_prompt()[0].image),)
    answered = (*asked, Message("assistant", "Yes"))

    rendered = tuple(
        processor(name).apply_chat_template(
            chat_content(messages), tokenize=False, add_generation_prompt=awaits
        )
        for messages, awaits in ((asked, True), (answered, False))
    )

    assert rendered == RENDERED[name]


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_have_the_processors_own_token_ids(name: str):
    encoder = PromptEncoder(processor(name))

    for messages in encoded_prompts():
        ids = encoder.encode(messages).tokens["input_ids"].tolist()
        assert ids == ids_by_processor(processor(name), messages)


@pytest.mark.parametrize(
    ("name", "beginning"),
    [("mistral", 1), ("vicuna", 1), ("llama-3", 0), ("gemma-3", 2), ("pixtral", 1)],
)
def test_a_prompt_has_one_beginning_whoever_writes_it(name: str, beginning: int):
    ids = PromptEncoder(processor(name)).encode(a_prompt()).tokens["input_ids"].tolist()

    assert ids[0] == beginning
    assert ids.count(beginning) == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_learned_is_the_answer_and_the_true_end_of_its_turn_alone(name: str):
    encoder = PromptEncoder(processor(name))
    rows = [training_row(a_prompt(), label=label) for label in (True, False)]
    ends = [] if encoder.end is None else [encoder.end]

    batch = AnswerCollator(processor(name))(rows)

    for row, answer in enumerate((encoder.answers.yes, encoder.answers.no)):
        labels = batch["labels"][row]
        assert labels[labels != IGNORED].tolist() == [answer, *ends]
    tokenizer = processor(name).tokenizer
    assert tokenizer.decode([encoder.answers.yes]).strip() == "Yes"
    assert tokenizer.decode([encoder.answers.no]).strip() == "No"


@pytest.mark.parametrize(
    ("name", "end"),
    [
        *[("mistral", "</s>"), ("old-mistral", None), ("vicuna", None), ("llama-3", "<|eot_id|>")],
        *[("chatml", "<|im_end|>"), ("qwen-72b", "<|im_end|>"), ("onevision", "<|im_end|>")],
        *[("gemma-3", "<end_of_turn>"), ("pixtral", "</s>")],
    ],
)
def test_an_end_spelled_in_plain_characters_is_none(name: str, end: str | None):
    tokenizer, found = processor(name).tokenizer, PromptEncoder(processor(name)).end

    assert end == (None if found is None else tokenizer.convert_ids_to_tokens(found))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_batch_holds_every_tensor_and_a_row_reads_alike_whatever_is_beside_it(name: str):
    encoder = PromptEncoder(processor(name))
    prompts = [a_prompt(), a_prompt(title="a much, much longer title than that"), a_prompt()]
    encoded = [encoder.encode(messages) for messages in prompts]

    batch = encoder.collate(encoded, padding_side="left")

    assert set(batch) == {*encoded[0].tokens, *encoded[0].images}
    for row, prompt in enumerate(encoded):
        for tensor, values in prompt.tokens.items():
            assert torch.equal(batch[tensor][row, -prompt.num_tokens :], values)
        assert not batch["attention_mask"][row, : -prompt.num_tokens].any()


@pytest.mark.parametrize("name", FAMILIES)
def test_dpo_prefers_the_first_token_of_an_answer(name: str):
    row = {**training_row(a_prompt(), label=True), "chosen": None, "rejected": None}
    row["chosen"] = row.pop("completion")
    row["rejected"] = training_row(a_prompt(), label=False)["completion"]

    batch = PreferenceCollator(processor(name))([row])

    answers = PromptEncoder(processor(name)).answers
    preferred = batch["input_ids"][batch["completion_mask"].bool()].tolist()
    assert preferred == [answers.yes, answers.no]
