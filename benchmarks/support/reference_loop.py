"""The other side of the comparison: the same work as the reference implementation's loop does it.

Written anew from its description; none of its code is here. transformers' `generate` in float32,
which is what it runs in where there is no GPU, one batch after the other, nothing kept between two:

    scores        batches of 6, images and prompts padded to the largest of the batch; 30 tokens
                  are generated and the first one is read
    summaries     batches of 8
    preferences   one user after the other

The prompts are ours, and so are the answer tokens: only how the work is run differs. A trained
model often ends its answer before the thirtieth token; the random one here never does, so what the
29 idle tokens cost is shown apart (`score` with num_tokens=1).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor

from services.core.prompts import Messages, scoring_messages, summary_messages
from services.core.records import Item
from services.core.scoring import answer_margin
from services.engines.prompt_encoding import PromptEncoder

SCORE_BATCH = 6
SCORE_TOKENS = 30
SUMMARY_BATCH = 8
DTYPE = torch.float32


class ReferenceLoop:
    """A checkpoint in this process, used as the reference implementation uses it."""

    def __init__(self, folder: Path) -> None:
        """Loads the weights; they may be stored in bfloat16."""
        self._encoder = PromptEncoder(LlavaNextProcessor.from_pretrained(folder))
        model: Any = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=DTYPE)
        self._model = model.eval()
        self._answers = self._encoder.answers

    def score(
        self, preference: str, items: Sequence[Item], *, num_tokens: int = SCORE_TOKENS
    ) -> list[float]:
        """The margin of every item, in order."""
        prompts = [scoring_messages(preference, item) for item in items]
        margins = []
        for batch in _batches(prompts, SCORE_BATCH):
            answer = self._generate(batch, num_tokens, output_logits=True)
            first = answer.logits[0]  # (B, V)
            margins += [
                answer_margin(yes=row[self._answers.yes].item(), no=row[self._answers.no].item())
                for row in first
            ]
        return margins

    def summarize(self, items: Sequence[Item], num_tokens: int) -> int:
        """Describe every item; the number of tokens written."""
        prompts = [summary_messages(item) for item in items]
        return sum(
            self._count_written(batch, num_tokens) for batch in _batches(prompts, SUMMARY_BATCH)
        )

    def write_preferences(self, prompts: Sequence[Messages], num_tokens: int) -> int:
        """Answer every prompt alone; the number of tokens written."""
        return sum(self._count_written([prompt], num_tokens) for prompt in prompts)

    def _count_written(self, batch: Sequence[Messages], num_tokens: int) -> int:
        answer = self._generate(batch, num_tokens)
        return len(batch) * len(answer.scores)

    def _generate(self, batch: Sequence[Messages], num_tokens: int, **options: Any) -> Any:
        encoded = [self._encoder.encode(prompt) for prompt in batch]
        inputs = self._encoder.collate(encoded, padding_side="left")
        with torch.inference_mode():
            return self._model.generate(
                **inputs,
                max_new_tokens=num_tokens,
                do_sample=False,
                return_dict_in_generate=True,
                output_scores=True,
                pad_token_id=self._encoder.pad_id,
                **options,
            )


def _batches(prompts: Sequence[Messages], size: int) -> Iterator[Sequence[Messages]]:
    return (prompts[start : start + size] for start in range(0, len(prompts), size))
