"""The loss falls on the answer alone."""

from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor

from model_training.finetune.collation import IGNORED, AnswerCollator, training_row
from services.core.errors import AnswerTokenMissing
from services.core.prompts import scoring_messages
from services.core.records import Item, ItemId
from tests.model_training.builders import a_cover


@pytest.fixture(scope="module")
def processor(checkpoint: Path):
    return AutoProcessor.from_pretrained(checkpoint)


def a_row(title: str = "a thing", color: str | None = "red", *, label: bool = True) -> dict:
    item = Item(ItemId("i1"), title, a_cover(color) if color else None)
    return training_row(scoring_messages("Likes red things.", item), label=label)


def supervised(batch: dict[str, torch.Tensor], row: int) -> torch.Tensor:
    return batch["labels"][row][batch["labels"][row] != IGNORED]


@pytest.mark.parametrize(("label", "text"), [(True, " Yes</s>"), (False, " No</s>")])
def test_supervised_tokens_are_exactly_the_answer_and_the_end(processor, label, text):
    batch = AnswerCollator(processor)(
        [a_row(label=label), a_row("a much longer title", label=label)]
    )

    for row in range(2):
        assert processor.tokenizer.decode(supervised(batch, row)) == text
        assert len(supervised(batch, row)) == 2


def test_the_answer_follows_the_prompt_and_only_padding_follows_the_answer(processor):
    batch = AnswerCollator(processor)(
        [a_row("short"), a_row("a much, much longer title than that")]
    )

    assert batch["input_ids"][0, -1] == processor.tokenizer.pad_token_id
    for row in range(2):
        length = int(batch["attention_mask"][row].sum())
        assert (batch["labels"][row, length - 2 : length] != IGNORED).all()
        assert (batch["labels"][row, length:] == IGNORED).all()


def test_rows_with_and_without_images_share_a_batch(processor):
    batch = AnswerCollator(processor)([a_row(color=None), a_row("b"), a_row("c", color=None)])

    assert batch["pixel_values"].shape == (1, 2, 3, 56, 56)
    assert [len(supervised(batch, row)) for row in range(3)] == [2, 2, 2]


def test_a_batch_without_images_has_no_pixels(processor):
    assert "pixel_values" not in AnswerCollator(processor)([a_row(color=None)])


def test_a_row_reads_alike_whatever_is_in_its_batch(processor):
    collate = AnswerCollator(processor)
    alone = collate([a_row()])
    together = collate([a_row("a much, much longer title than that"), a_row()])

    length = alone["input_ids"].shape[1]
    assert together["input_ids"][1, :length].tolist() == alone["input_ids"][0].tolist()
    assert torch.equal(together["pixel_values"][1], alone["pixel_values"][0])


def test_a_template_that_renders_an_answer_differently_is_refused(checkpoint: Path):
    processor = AutoProcessor.from_pretrained(checkpoint)
    processor.chat_template = "{{ messages | length }}{% if add_generation_prompt %}>{% endif %}"

    with pytest.raises(AnswerTokenMissing):
        AnswerCollator(processor)
