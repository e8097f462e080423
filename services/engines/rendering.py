"""Chat messages in the form of transformers' chat templates, for training and serving alike.

It writes no markup: the model's own template turns the messages into text.
"""

import io
from typing import Any

from PIL import Image

from services.core.prompts import Message, Messages
from services.core.scoring import NO, YES, AnswerTokens, find_answer_tokens

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


def render(processor: Any, content: list[dict[str, Any]], *, answered: bool) -> str:
    """`chat_content` as the text that the processor's chat template makes of it.

    Unless it is `answered`, it ends where the model's answer begins.
    """
    text: str = processor.apply_chat_template(
        content, tokenize=False, add_generation_prompt=not answered
    )
    return text


def answer_tokens(processor: Any) -> AnswerTokens:
    """The answer tokens under this processor's chat template; AnswerTokenMissing if unusable."""

    def tokenize(answer: str | None) -> list[int]:
        text = render(processor, chat_content(PROBES[answer]), answered=answer is not None)
        # The template has written every special token already.
        ids: list[int] = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    return find_answer_tokens(tokenize)


def _parts(message: Message) -> list[dict[str, Any]]:
    image: list[dict[str, Any]] = [] if message.image is None else [{"type": "image"}]
    return [*image, {"type": "text", "text": message.text}]
