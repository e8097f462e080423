"""Turns rows into tensors: prompts as the engines render them, answered or not.

With an answer, the loss is on the answer alone.

TRL's own collator tokenizes prompt and answer separately. With a tokenizer that marks word starts
(such as the published LLaVA-NeXT's) the answer after `[/INST]` then has other tokens than in the
whole text, and the adapter would learn an answer that no engine reads. So the whole text is
tokenized here, and the answer is what follows the prompt in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from services.core.errors import AnswerTokenMissing
from services.core.prompts import Message, Messages
from services.core.scoring import NO, YES
from services.engines.rendering import answer_tokens, chat_content, prompt_images, render

IGNORED = -100  # torch's cross entropy skips this label


def training_row(messages: Messages, *, label: bool) -> dict[str, Any]:
    """A question and its answer in the form of TRL's trainers.

    `{"images", "prompt", "completion"}`: images, and chat messages in the form of the templates.
    """
    answer = Message("assistant", YES if label else NO)
    return {
        "images": prompt_images(messages),
        "prompt": chat_content(messages),
        "completion": chat_content((answer,)),
    }


class AnswerCollator:
    """Batches rows of `training_row` for the trainer."""

    def __init__(self, processor: Any) -> None:
        """`processor` is the base model's; AnswerTokenMissing if its template has no answers."""
        self._processor = processor
        self.answers = answer_tokens(processor)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and `labels` (B, T), padded on the right, and the images.

        Labels are IGNORED except on the answer and the end of its turn. AnswerTokenMissing if a
        row's answer does not begin with an answer token.
        """
        asked = [render(self._processor, row["prompt"], answered=False) for row in rows]
        answered = [
            render(self._processor, [*row["prompt"], *row["completion"]], answered=True)
            for row in rows
        ]
        images = [image for row in rows for image in row["images"]]
        batch = _encode(self._processor, answered, images, padding_side="right")
        labels = torch.full_like(batch["input_ids"], IGNORED)
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        prompts, texts = (
            self._processor.tokenizer(each, add_special_tokens=False)["input_ids"]
            for each in (asked, answered)
        )
        first_tokens = (self.answers.yes, self.answers.no)
        for row, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
            num_prompt = len(prompt)
            if text[:num_prompt] != prompt or text[num_prompt] not in first_tokens:
                raise AnswerTokenMissing(
                    "an answered prompt does not continue the unanswered one with Yes or No; the "
                    "tokenizer merges the end of the prompt with the answer"
                )
            answer = slice(lengths[row] - (len(text) - num_prompt), lengths[row])
            labels[row, answer] = batch["input_ids"][row, answer]
        batch["labels"] = labels
        return batch


class PromptCollator:
    """Batches unanswered prompts, so that the answer's position is the last of every row."""

    def __init__(self, processor: Any) -> None:
        """`processor` is the base model's; AnswerTokenMissing if its template has no answers."""
        self._processor = processor
        self.answers = answer_tokens(processor)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask` (B, T), padded on the left, and the images.

        B counts the `prompts` of all rows, in order. Other columns of a row hold a value for each
        of its prompts and become tensors (B,).
        """
        prompts: list[Messages] = [messages for row in rows for messages in row["prompts"]]
        asked = [render(self._processor, chat_content(each), answered=False) for each in prompts]
        images = [image for messages in prompts for image in prompt_images(messages)]
        batch = _encode(self._processor, asked, images, padding_side="left")
        for name in rows[0].keys() - {"prompts"}:
            batch[name] = torch.tensor([value for row in rows for value in row[name]])
        return batch


def _encode(
    processor: Any, texts: list[str], images: list[Any], *, padding_side: str
) -> dict[str, torch.Tensor]:
    return dict(
        processor(
            text=texts,
            images=images or None,
            padding=True,
            padding_side=padding_side,
            add_special_tokens=False,  # the template has written every special token already
            return_tensors="pt",
        )
    )
