"""Bodies of `POST /interactions`."""

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from services.core.wire.common import MAX_INTERACTIONS, Answer, Id, Request, TimestampMs, example


class InteractionIn(Request):
    """One user acting on one item."""

    model_config = example(user_id="u42", item_id="i7", timestamp_ms=1_767_225_600_000)

    user_id: Id
    item_id: Id
    timestamp_ms: TimestampMs | None = Field(
        default=None,
        description="Milliseconds since the epoch; the server's time if left out, a millisecond "
        "later for each place in the list. Rejected if negative or more than a day ahead.",
    )
    event_id: Id | None = Field(
        default=None,
        description="Makes a retry harmless. If left out, it is derived from user, item and "
        "timestamp, so a retry is recognized only with its timestamp.",
    )


class InteractionBatch(Request):
    """Many interactions at once, of any users, in any order."""

    model_config = example(
        interactions=[
            {"user_id": "u42", "item_id": "i7", "timestamp_ms": 1_767_225_600_000},
            {"user_id": "u43", "item_id": "i7", "timestamp_ms": 1_767_225_601_000},
        ]
    )

    interactions: list[InteractionIn] = Field(min_length=1, max_length=MAX_INTERACTIONS)


def _kind_of_interactions(body: Any) -> str:
    if isinstance(body, InteractionBatch) or (isinstance(body, dict) and "interactions" in body):
        return "batch"
    return "one"


Interactions = Annotated[
    Annotated[InteractionIn, Tag("one")] | Annotated[InteractionBatch, Tag("batch")],
    Discriminator(_kind_of_interactions),
]


class RejectedInteraction(Answer):
    """An interaction that was not accepted; the others of its request were."""

    index: int = Field(description="Its place in the request, from 0.")
    user_id: str
    item_id: str
    reason: str = Field(description="What is wrong with it, and what to do.")


class InteractionsResponse(Answer):
    """The result of the request. Interactions are stored; preferences follow in the background."""

    model_config = example(accepted=2, duplicates=0, rejected=[], versions={"u42": 8, "u43": 1})

    accepted: int
    duplicates: int = Field(description="Known by their event id, and not counted again.")
    rejected: list[RejectedInteraction]
    versions: dict[str, int] = Field(description="Each user's history version after the request.")
