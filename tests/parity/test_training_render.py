"""What an adapter is trained on is, token by token, what an engine is asked."""

from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoProcessor, PreTrainedTokenizerFast

from model_training.demo.tokenizer import build_processor
from model_training.finetune.collation import IGNORED, AnswerCollator, training_row
from services.core.prompts import Messages
from services.engines.local.engine import LocalEngine
from services.engines.prompt_encoding import EncodedPrompt, PromptEncoder
from tests.engines.conftest import a_prompt

PROMPTS = [
    a_prompt(),
    a_prompt(color=None),
    a_prompt(title="", taste=""),
    a_prompt(title="[INST] </s> <image> Émile 猫", taste="Yes. No."),
    a_prompt(
        title="x" * 300, color="blue", taste=" ".join(f"striped thing {k}" for k in range(80))
    ),
]


@pytest.fixture
async def engine(checkpoint: Path, adapter: Path):
    opened = LocalEngine.load(str(checkpoint), str(adapter), device="cpu")
    yield opened
    await opened.close()


@pytest.fixture
def collate(checkpoint: Path) -> AnswerCollator:
    return AnswerCollator(AutoProcessor.from_pretrained(checkpoint))


def served(engine: LocalEngine, messages: Messages) -> EncodedPrompt:
    return engine._model.encode_to_fit(messages, 1)


def asked_tokens(batch: dict[str, torch.Tensor], row: int) -> torch.Tensor:
    """The tokens of a row before its answer."""
    return batch["input_ids"][row, : int((batch["labels"][row] != IGNORED).nonzero()[0, 0])]


def test_training_and_serving_render_the_same_prompt_tokens(engine, collate):
    batch = collate([training_row(messages, label=True) for messages in PROMPTS])

    for row, messages in enumerate(PROMPTS):
        assert (
            asked_tokens(batch, row).tolist()
            == served(engine, messages).tokens["input_ids"].tolist()
        )


def test_training_and_serving_see_the_same_pixels(engine, collate):
    shown = [messages for messages in PROMPTS if messages[0].image is not None]
    batch = collate([training_row(messages, label=True) for messages in PROMPTS])

    pixels = torch.cat([served(engine, messages).images["pixel_values"] for messages in shown])
    assert torch.equal(batch["pixel_values"], pixels)
    assert batch["image_sizes"].tolist() == [[56, 56]] * len(shown)


def test_training_teaches_the_answer_tokens_that_serving_reads(engine, collate):
    assert collate.answers == engine._model.answers


async def test_the_trainers_forward_pass_gives_the_served_margin(engine, collate):
    messages: Messages = PROMPTS[0]
    batch = collate([training_row(messages, label=True)])
    position = int((batch.pop("labels")[0] != IGNORED).nonzero()[0, 0]) - 1
    with torch.inference_mode():
        logits = engine._model._model(**batch).logits[0, position]
    served = await engine.score(messages)

    trained = float(logits[collate.answers.yes] - logits[collate.answers.no])
    assert trained == pytest.approx(served.yes - served.no, abs=1e-4)


def test_a_tokenizer_that_marks_word_starts_is_taught_what_it_is_asked():
    # As the published LLaVA-NeXT's: after "[/INST]" the answer is one token, alone it is two.
    processor = build_processor(a_word_start_tokenizer())
    yes = processor.tokenizer.convert_tokens_to_ids("▁Yes")
    assert processor.tokenizer(" Yes")["input_ids"][0] != yes

    labels = AnswerCollator(processor)([training_row(a_prompt(color=None), label=True)])["labels"]

    assert PromptEncoder(processor).answers.yes == yes
    assert labels[labels != IGNORED].tolist() == [yes, processor.tokenizer.eos_token_id]


def a_word_start_tokenizer() -> PreTrainedTokenizerFast:
    words = ["<unk>", "<pad>", "</s>", "<image>", "▁", "▁Yes", "▁No", "▁[/INST]"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    word_start = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(word_start)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁[^▁]*"), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
    )
