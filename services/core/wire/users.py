"""Bodies of `GET /users/{user_id}/preference`."""

from pydantic import Field

from services.core.wire.common import Answer, example


class PreferenceBlock(Answer):
    """One full block of the history and the preference written after it."""

    number: int = Field(description="From 1, over the user's whole life.")
    item_ids: list[str]
    preference: str
    written_ms: int = Field(description="When it was written, milliseconds since the epoch.")


class PreferenceResponse(Answer):
    """A user's written preference, and the blocks it was written from."""

    model_config = example(
        user_id="u42",
        preference="Red outline drawings of animals; earlier blue ones.",
        history_version=4,
        preference_version=4,
        num_blocks=1,
        tail=["i7"],
        timeline=[
            {
                "number": 1,
                "item_ids": ["i1", "i2", "i3"],
                "preference": "Blue drawings of animals.",
                "written_ms": 1_767_225_600_000,
            }
        ],
    )

    user_id: str
    preference: str = Field(description='"" before the first update.')
    history_version: int
    preference_version: int
    writer: str = Field(
        default="",
        description='The model that wrote the preference and the prompt, by fingerprint; "" before '
        "the first update.",
    )
    by_another_model: bool = Field(
        default=False, description="True if another model than this server's wrote some of it."
    )
    num_blocks: int = Field(description="Full blocks covered so far.")
    tail: list[str] = Field(description="Items of the unfinished block, oldest first.")
    timeline: list[PreferenceBlock] = Field(
        description="Full blocks, oldest first; of a very long history the latest ones."
    )
