"""Turns rows into tensors: prompts as the engines encode them, answered or not.

With an answer, the loss is on the answer alone: on the token that the engines read, and on the
special token that ends the model's turn, if its template writes one. What else a template writes
around an answer (spaces, newlines, an end spelled in plain characters) is never learned.

TRL's own collator tokenizes prompt and answer separately. With a tokenizer that marks word starts
(such as the published LLaVA-NeXT's) the answer after `[/INST]` then has other tokens than in the
whole text, and the adapter would learn an answer that no engine reads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from services.core.prompts import Message, Messages
from services.core.scoring import NO, YES
from services.engines.prompt_encoding import PromptEncoder
from services.engines.rendering import chat_content, prompt_images

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
        self._encoder = PromptEncoder(processor)
        self.answers = self._encoder.answers
        ends = [] if self._encoder.end is None else [self._encoder.end]
        self._answer_ids = {YES: [self.answers.yes, *ends], NO: [self.answers.no, *ends]}

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and `labels` (B, T), padded on the right, and the images.

        Labels are IGNORED except on the answer and the end of its turn.
        """
        answers = [self._answer_ids[row["completion"][0]["content"][0]["text"]] for row in rows]
        prompts = [self._encoder.encode_content(row["prompt"], row["images"]) for row in rows]
        batch = self._encoder.collate(
            [prompt.followed_by(answer) for prompt, answer in zip(prompts, answers, strict=True)],
            padding_side="right",
        )
        labels = torch.full_like(batch["input_ids"], IGNORED)
        for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            end = prompt.num_tokens + len(answer)
            labels[number, prompt.num_tokens : end] = torch.tensor(answer)
        return {**batch, "labels": labels}


class PromptCollator:
    """Batches unanswered prompts, so that the answer's position is the last of every row."""

    def __init__(self, processor: Any) -> None:
        """`processor` is the base model's; AnswerTokenMissing if its template has no answers."""
        self._encoder = PromptEncoder(processor)
        self.answers = self._encoder.answers

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask` (B, T), padded on the left, and the images.

        B counts the `prompts` of all rows, in order. Other columns of a row hold a value for each
        of its prompts and become tensors (B,).
        """
        prompts: list[Messages] = [messages for row in rows for messages in row["prompts"]]
        batch = self._encoder.collate(
            [self._encoder.encode(messages) for messages in prompts], padding_side="left"
        )
        for name in rows[0].keys() - {"prompts"}:
            batch[name] = torch.tensor([value for row in rows for value in row[name]])
        return batch
