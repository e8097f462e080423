"""Chat messages in the form of transformers' chat templates, for training and serving alike.

It writes no markup: the model's own template turns the messages into text
(`prompt_encoding.PromptEncoder`).
"""

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from services.core.prompts import Message, Messages
from services.core.scoring import NO, YES

_QUESTION: Messages = (Message("user", "Yes or No?"),)
# A question without an answer (None), and answered with each answer word.
PROBES: dict[str | None, Messages] = {
    None: _QUESTION,
    YES: (*_QUESTION, Message("assistant", YES)),
    NO: (*_QUESTION, Message("assistant", NO)),
}


def chat_content(messages: Messages) -> list[dict[str, Any]]:
    """Messages as `[{"role", "content": [{"type": "image"}, {"type": "text", "text"}]}]`.

    The image part, if any, comes first, then exactly one text part.
    """
    return [{"role": message.role, "content": _parts(message)} for message in messages]


def prompt_images(messages: Messages) -> list[Image.Image]:
    """The images of the messages in order, decoded to RGB."""
    return [
        Image.open(io.BytesIO(message.image.data)).convert("RGB")
        for message in messages
        if message.image is not None
    ]


def adds_special_tokens(with_them: Sequence[int], without: Sequence[int]) -> bool:
    """Whether a model reads the special tokens that its tokenizer adds to a rendered prompt.

    From the prompt's token ids with and without them. They are added unless the template has
    written the beginning itself: transformers' rule in `ProcessorMixin.apply_chat_template`.
    """
    num_added = len(with_them) - len(without)
    comes_first = list(with_them[num_added:]) == list(without)
    return num_added > 0 and not (comes_first and with_them[0] == without[0])


def _parts(message: Message) -> list[dict[str, Any]]:
    image: list[dict[str, Any]] = [] if message.image is None else [{"type": "image"}]
    return [*image, {"type": "text", "text": message.text}]
