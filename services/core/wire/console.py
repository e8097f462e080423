"""Bodies of the console's routes: lists of users and items, a user's history, progress of steps.

They need only pydantic and the standard library. Lists may be some seconds old.
"""

from enum import IntEnum
from typing import Annotated, Literal

from pydantic import Field

from services.core.ids import MAX_ID_CHARS
from services.core.wire.common import Answer, example
from services.core.wire.items import EXAMPLE_ITEM, ItemStatus, ItemView

MAX_LISTED_USERS = 100
MAX_LISTED_ITEMS = 200
MAX_SHOWN_INTERACTIONS = 1000
# Far more than is listed; the bound keeps arithmetic on it exact everywhere.
MAX_OFFSET = 10_000_000
StepState = Literal["done", "under-way", "missing", "unreadable"]

Search = Annotated[str, Field(max_length=MAX_ID_CHARS)]


class CoverWidth(IntEnum):
    """Widths in pixels: in a list, on a card, and on a card of a high-resolution screen."""

    SMALL = 96
    MEDIUM = 160
    LARGE = 320


# --- users ---------------------------------------------------------------------------------------


class UserEntry(Answer):
    """A user in a list."""

    user_id: str
    preference: str = Field(description='"" before the first update.')
    history_version: int
    preference_version: int


class UsersResponse(Answer):
    """One page of users."""

    model_config = example(
        users=[
            {
                "user_id": "u42",
                "preference": "Red outline drawings of animals; earlier blue ones.",
                "history_version": 4,
                "preference_version": 4,
            }
        ],
        num_matching=1,
        num_users=500,
        complete=True,
    )

    users: list[UserEntry]
    num_matching: int = Field(description="Users whose id begins with the search text.")
    num_users: int = Field(description="All users.")
    complete: bool = Field(description="False if there are more than the server searches.")


class HistoryEntry(Answer):
    """One interaction; the item's fields are null if the catalogue no longer has it."""

    item_id: str
    timestamp_ms: int
    title: str | None
    item_version: str | None
    has_image: bool


_EXAMPLE_ENTRY = {
    "item_id": "i7",
    "timestamp_ms": 1_767_225_600_000,
    "title": "A red fox in the snow",
    "item_version": "9f86d081884c7d65",
    "has_image": True,
}


class HistoryResponse(Answer):
    """The latest interactions of a user's history."""

    model_config = example(
        user_id="u42",
        history_version=4,
        num_earlier=3,
        interactions=[_EXAMPLE_ENTRY],
    )

    user_id: str
    history_version: int
    num_earlier: int = Field(description="Earlier interactions: not requested, or no longer kept.")
    interactions: list[HistoryEntry] = Field(description="Oldest first.")


class PersonaView(Answer):
    """A user worth looking at, and why."""

    user_id: str
    name: str
    about: str = Field(description="One sentence on the history.")
    last_taken: list[HistoryEntry] = Field(description="Oldest first.")


class PersonasResponse(Answer):
    """The personas of the data folder."""

    model_config = example(
        personas=[
            {
                "user_id": "u42",
                "name": "From red outlines to blue stripes",
                "about": "The first 4 interactions are mostly red outlines, the next 7 mostly "
                "blue stripes.",
                "last_taken": [_EXAMPLE_ENTRY],
            }
        ]
    )

    personas: list[PersonaView]


# --- items ---------------------------------------------------------------------------------------


class ItemsResponse(Answer):
    """One page of items."""

    model_config = example(
        items=[EXAMPLE_ITEM],
        num_matching=1,
        num_by_status={"ready": 478, "pending": 1, "failed": 1},
        complete=True,
    )

    items: list[ItemView]
    num_matching: int
    num_by_status: dict[ItemStatus, int] = Field(
        description="Of the whole catalogue; empty if the request names items."
    )
    complete: bool = Field(description="False if there are more than the server searches.")


# --- progress ------------------------------------------------------------------------------------


class QuarantinedView(Answer):
    """A row that a step left out."""

    row: str
    reason: str


class TextsView(Answer):
    """How much the texts of an artifact vary. Equal inputs count once."""

    num_texts: int
    num_distinct: int
    most_frequent: str = Field(
        description='The most frequent summary, shortened; "" of preferences.'
    )
    most_frequent_share: float = Field(description="Of the texts.")
    num_empty: int = Field(description="Inputs for which the model wrote nothing, or refused.")
    num_cut: int = Field(description="Texts that the token limit ended.")
    warning: str = Field(description='What is wrong and what to do; "" if the texts vary.')


class StepView(Answer):
    """One artifact in the data folder, and the step that makes it."""

    artifact: str
    command: str = Field(description="The command that makes it, without `msr`.")
    state: StepState = Field(
        description="`under-way`: a run has written some of its parts; it runs or was stopped. "
        "A finished artifact may be made again at the same time (`num_parts`)."
    )
    model: str = Field(description='Fingerprint of the model that made it; "" for none.')
    model_name: str = Field(default="", description='Its name; "" if that is not known.')
    counts: dict[str, int]
    num_parts: int = Field(description="Parts that an unfinished run has written.")
    num_quarantined: int
    quarantined: list[QuarantinedView] = Field(description="The first of them.")
    texts: TextsView | None = Field(
        default=None, description="Null for artifacts without texts, or of an older version."
    )


class UpdatesView(Answer):
    """Preference updates that wait."""

    num_waiting: int
    lag_seconds: float = Field(description="How long the oldest has waited.")
    num_dead: int = Field(description="Given up after too many failures.")


class ProgressResponse(Answer):
    """The progress of the offline steps and of preference updates."""

    model_config = example(
        steps=[
            {
                "artifact": "summaries",
                "command": "summarize-images",
                "state": "done",
                "model": "1f2e3d4c5b6a7988",
                "counts": {"items": 480},
                "num_parts": 0,
                "num_quarantined": 1,
                "quarantined": [{"row": "i13", "reason": "the engine refused the prompt"}],
                "texts": {
                    "num_texts": 479,
                    "num_distinct": 431,
                    "most_frequent": "A red fox in outline style.",
                    "most_frequent_share": 0.0084,
                    "num_empty": 1,
                    "num_cut": 0,
                    "warning": "",
                },
            }
        ],
        updates={"num_waiting": 0, "lag_seconds": 0.0, "num_dead": 0},
    )

    steps: list[StepView] = Field(description="In the order in which they run.")
    updates: UpdatesView
