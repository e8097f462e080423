"""Chat messages in the form transformers' chat templates take; training and serving both use it.

No markup is written here: the model's own template turns this into text.
"""

import io
from typing import Any

from PIL import Image

from services.core.prompts import Message, Messages


def chat_content(messages: Messages) -> list[dict[str, Any]]:
    """Messages as `[{"role", "content": [{"type": "image"}, {"type": "text", "text"}]}]`.

    The picture part, if any, comes first, then exactly one text part.
    """
    return [{"role": message.role, "content": _parts(message)} for message in messages]


def pictures(messages: Messages) -> list[Image.Image]:
    """The pictures of the messages in order, decoded to RGB."""
    return [
        Image.open(io.BytesIO(message.picture.data)).convert("RGB")
        for message in messages
        if message.picture is not None
    ]


def _parts(message: Message) -> list[dict[str, Any]]:
    picture: list[dict[str, Any]] = [] if message.picture is None else [{"type": "image"}]
    return [*picture, {"type": "text", "text": message.text}]
