"""Messages as a model reads them: token ids and image tensors, for the local engine and training.

A model's authors say in its processor how messages become tokens: a chat template writes the text,
the tokenizer may add its special tokens to it, and the image processor makes tensors that differ
between model families. `PromptEncoder` asks the processor's own `apply_chat_template` for all of
it. vLLM tokenizes by itself, and is told the one decision that it would take otherwise:
`adds_special_tokens`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import pad

from services.core.errors import ModelUnusable
from services.core.fingerprint import fingerprint
from services.core.prompts import Messages
from services.core.scoring import NO, YES, AnswerTokens, find_answer_tokens
from services.engines.rendering import (
    PROBES,
    adds_special_tokens,
    chat_content,
    prompt_images,
)


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """One prompt: `tokens` has `input_ids` and all that stands beside them, (T,) each; `images`
    has everything else that the processor returned, with the image or its parts in dimension 0.
    """

    tokens: Mapping[str, torch.Tensor]
    images: Mapping[str, torch.Tensor]
    was_shortened: bool = False

    @property
    def num_tokens(self) -> int:
        """Its length, image tokens included."""
        return int(self.tokens["input_ids"].shape[0])

    @property
    def image_shapes(self) -> tuple[object, ...]:
        """Prompts whose images can be computed together have the same; () without an image."""
        return tuple((name, tuple(self.images[name].shape)) for name in sorted(self.images))

    def followed_by(self, ids: Sequence[int]) -> "EncodedPrompt":
        """The prompt with these text tokens after it."""
        added = {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(len(ids))}
        tokens = {
            name: torch.cat([values, added.get(name, torch.zeros(len(ids))).to(values.dtype)])
            for name, values in self.tokens.items()
        }
        return EncodedPrompt(tokens, self.images, self.was_shortened)


class PromptEncoder:
    """Encodes prompts by a model's own processor.

    `answers` are the tokens that answer Yes and No, `end` is the special token that the template
    writes after an answer (None if it writes none). `adds_special_tokens` says whether the
    tokenizer adds its own to what the template writes. `fingerprint` changes with the template.
    """

    def __init__(self, processor: Any, *, texts_only: bool = False) -> None:
        """Raises ModelUnusable for a processor without chat template or without padding,
        AnswerTokenMissing if the template has no one-token Yes and No; with `texts_only` the
        latter when `answers` is read.
        """
        self.adds_special_tokens = tokenizer_adds_special_tokens(processor)
        pad_id = processor.tokenizer.pad_token_id
        if pad_id is None and texts_only:  # padding is masked, so any token will do
            pad_id = processor.tokenizer.eos_token_id
        if pad_id is None:
            raise ModelUnusable(
                "the tokenizer has no pad token; name one as `pad_token` in the model's "
                "tokenizer_config.json"
            )
        self._processor = processor
        self.pad_id = int(pad_id)
        answered = {word: self._ids(messages) for word, messages in PROBES.items()}
        self.fingerprint = fingerprint(
            {str(word): ids for word, ids in answered.items()} | {"shown": self._shown()}
        )
        self._answered = answered
        if not texts_only:
            self.end = self._find_end(answered)

    @cached_property
    def answers(self) -> AnswerTokens:
        """The tokens of Yes and No."""
        return find_answer_tokens(self._answered.__getitem__)

    def encode(self, messages: Messages) -> EncodedPrompt:
        """The prompt's tokens and images, ending where the model's answer begins."""
        return self.encode_content(chat_content(messages), prompt_images(messages))

    def encode_content(
        self, content: Sequence[Mapping[str, Any]], images: Sequence[Any]
    ) -> EncodedPrompt:
        """The same from `rendering.chat_content` and the images that it names."""
        shown = iter(images)
        filled = [
            {
                **turn,
                "content": [
                    {**part, "image": next(shown)} if part["type"] == "image" else part
                    for part in turn["content"]
                ],
            }
            for turn in content
        ]
        encoded = _apply(self._processor, filled, tokenize=True)
        shape = encoded["input_ids"].shape
        tensors = {name: values for name, values in encoded.items() if torch.is_tensor(values)}
        return EncodedPrompt(
            tokens={name: values[0] for name, values in tensors.items() if values.shape == shape},
            images={name: values for name, values in tensors.items() if values.shape != shape},
        )

    def collate(self, batch: Sequence[EncodedPrompt], *, padding_side: str) -> dict[str, Any]:
        """One batch: tokens (B, T), padded with the pad token and zeros; images one after another,
        those of different shapes filled up with zeros.
        """
        width = max(prompt.num_tokens for prompt in batch)
        found: dict[str, Any] = {}
        for name in batch[0].tokens:
            filler = self.pad_id if name == "input_ids" else 0
            rows = [prompt.tokens[name] for prompt in batch]
            missing = [width - len(row) for row in rows]
            found[name] = torch.stack(
                [
                    pad(row, (count, 0) if padding_side == "left" else (0, count), value=filler)
                    for row, count in zip(rows, missing, strict=True)
                ]
            )
        for name in sorted({name for prompt in batch for name in prompt.images}):
            found[name] = _join([p.images[name] for p in batch if name in p.images])
        return found

    def _shown(self) -> str:
        """What the template makes of an image and a text."""
        image = [] if self._processor.image_processor is None else [{"type": "image"}]
        parts = [*image, {"type": "text", "text": "?"}]
        text: str = _apply(self._processor, [{"role": "user", "content": parts}], tokenize=False)
        return text

    def _ids(self, messages: Messages) -> list[int]:
        awaiting = messages[-1].role == "user"
        encoded = _apply(
            self._processor, chat_content(messages), tokenize=True, add_generation_prompt=awaiting
        )
        ids: list[int] = encoded["input_ids"][0].tolist()
        return ids

    def _find_end(self, answered: Mapping[str | None, Sequence[int]]) -> int | None:
        """The special token after both answers, if the template writes one."""
        added = self._processor.tokenizer.added_tokens_decoder
        followers = set()
        for word, token in ((YES, self.answers.yes), (NO, self.answers.no)):
            ids = list(answered[word])
            after = len(ids) - ids[::-1].index(token)  # the question may hold the words as well
            followers.add(ids[after] if after < len(ids) else None)
        end = followers.pop() if len(followers) == 1 else None
        return end if end in added and added[end].special else None


def tokenizer_adds_special_tokens(processor: Any) -> bool:
    """See `rendering.adds_special_tokens`; ModelUnusable if there is no chat template."""
    if not getattr(processor, "chat_template", None):
        raise ModelUnusable(
            f"this {type(processor).__name__} has no chat template; add the model's "
            "chat_template.jinja to its folder"
        )
    text = _apply(processor, chat_content(PROBES[None]), tokenize=False)
    full, bare = (
        processor.tokenizer(text, add_special_tokens=adds)["input_ids"] for adds in (True, False)
    )
    return adds_special_tokens(full, bare)


def _apply(
    processor: Any,
    content: Sequence[Mapping[str, Any]],
    *,
    tokenize: bool,
    add_generation_prompt: bool = True,
) -> Any:
    return processor.apply_chat_template(
        content,
        tokenize=tokenize,
        add_generation_prompt=add_generation_prompt,
        return_dict=True,
        # In this place, since SmolVLM's processor warns at every call that has nothing in it.
        processor_kwargs={"return_tensors": "pt"},
    )


def _join(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    largest = [max(sizes) for sizes in zip(*(each.shape[1:] for each in tensors), strict=True)]
    filled = []
    for each in tensors:
        missing = [m - size for m, size in zip(largest, each.shape[1:], strict=True)]
        filled.append(pad(each, [n for count in reversed(missing) for n in (0, count)]))
    return torch.cat(filled)
