"""Bodies of the item routes: `PUT`, `GET` and `DELETE /items/{item_id}`."""

from typing import Any, Literal

from pydantic import Field

from services.core.wire.common import (
    MAX_IMAGE_BASE64_CHARS,
    MAX_TITLE_INPUT_CHARS,
    MAX_URL_CHARS,
    Answer,
    Id,
    Request,
    example,
)

ItemStatus = Literal["ready", "pending", "failed"]

EXAMPLE_ITEM: dict[str, Any] = {
    "item_id": "i7",
    "title": "A red fox in the snow",
    "version": "9f86d081884c7d65",
    "has_image": True,
    "status": "ready",
    "summary": "A red fox drawn in outline on white, calm.",
    "reason": None,
}


class ItemIn(Request):
    """An item to add or replace: a title and at most one image."""

    model_config = example(
        item_id="i7",
        title="A red fox in the snow",
        image_url="https://images.example.com/i7.jpg",
    )

    item_id: Id
    title: str = Field(min_length=1, max_length=MAX_TITLE_INPUT_CHARS)
    image: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_IMAGE_BASE64_CHARS,
        description="The image's file (JPEG, PNG, WebP, GIF or BMP) in base64.",
        json_schema_extra={"contentEncoding": "base64"},
    )
    image_url: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_URL_CHARS,
        description="Where to fetch the image, on a host that the server allows; not together "
        "with `image`.",
    )


class ItemView(Answer):
    """An item of the catalogue as the model sees it."""

    model_config = example(**EXAMPLE_ITEM)

    item_id: str
    title: str
    version: str = Field(description="Changes exactly when title or image change.")
    has_image: bool
    status: ItemStatus = Field(description="Whether the summary is written. All can be scored.")
    summary: str | None
    reason: str | None = Field(description="Why there is no summary, for status `failed`.")
    writer: str = Field(
        default="",
        description="The model that described it, or failed to, and the prompt, by fingerprint; "
        '"" if that is not known.',
    )
