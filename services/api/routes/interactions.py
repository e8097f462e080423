"""POST /interactions: store one to 1,000 interactions."""

import time
from collections import Counter
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Body

from services.api.dependencies import AppDependencies
from services.api.http.problems import documented
from services.api.route_guard import Caller, GuardedRoute, needs
from services.core import wire
from services.core.api_keys import Scope
from services.core.errors import BacklogFull, StateError, StateUnavailable
from services.core.ids import derive_event_id
from services.core.records import Interaction, ItemId, UserId
from services.state.records import Ingested, Outcome
from services.telemetry import request_context

MAX_AHEAD_MS = 24 * 3600 * 1000
INTERACTIONS_A_TOKEN = 100

router = APIRouter(tags=["interactions"], route_class=GuardedRoute)

_ONE = {"user_id": "u42", "item_id": "i7", "timestamp_ms": 1_767_225_600_000}
_EXAMPLES: dict[str, Any] = {
    "one": {"summary": "One interaction", "value": _ONE},
    "many": {
        "summary": "Several at once",
        "value": {"interactions": [_ONE, {**_ONE, "user_id": "u43"}]},
    },
}


@router.post(
    "/interactions",
    status_code=202,
    summary="Take in interactions",
    responses=documented(StateUnavailable, StateError, BacklogFull, body=True),
)
@needs(Scope.WRITE)
async def add_interactions(
    body: Annotated[wire.Interactions, Body(openapi_examples=_EXAMPLES)],
    deps: AppDependencies,
    caller: Caller,
) -> wire.InteractionsResponse:
    """Store the interactions; the preferences are updated in the background.

    A request that does not fit the schema is refused as a whole. Otherwise each interaction is
    accepted, a duplicate, or rejected with a reason. Repeating a request is harmless if its
    interactions carry a timestamp or an event id. While too many preference updates wait, the whole
    request is refused with 429: send it again later.
    """
    deps.backlog.require_room()
    received = body.interactions if isinstance(body, wire.InteractionBatch) else [body]
    # Every request paid one token already; a large one costs more.
    cost = -(-len(received) // INTERACTIONS_A_TOKEN)
    await deps.access.charge(caller, cost - 1, num_taken=1)
    now_ms = time.time_ns() // 1_000_000
    # Without timestamps the order of the list is the order of the interactions.
    interactions = [
        _interaction(each, arrived_ms=now_ms + index) for index, each in enumerate(received)
    ]
    faults = [_fault(each.timestamp_ms, now_ms) for each in interactions]
    stored = await deps.store.ingest(
        [each for each, fault in zip(interactions, faults, strict=True) if fault is None],
        origin=str(request_context.current()),
    )
    outcomes = iter(stored)
    results = [
        (each, next(outcomes) if fault is None else Ingested("rejected", 0, fault))
        for each, fault in zip(interactions, faults, strict=True)
    ]
    await deps.outcomes.count(each for each, result in results if result.outcome == "accepted")
    counts = Counter(result.outcome for _, result in results)
    for outcome in get_args(Outcome):
        deps.metrics.interactions.labels(outcome).inc(counts[outcome])
    return wire.InteractionsResponse(
        accepted=counts["accepted"],
        duplicates=counts["duplicate"],
        rejected=[
            wire.RejectedInteraction(
                index=index,
                user_id=each.user_id,
                item_id=each.item_id,
                reason=result.reason or "the store refused it",
            )
            for index, (each, result) in enumerate(results)
            if result.outcome == "rejected"
        ],
        versions={
            each.user_id: result.version for each, result in results if result.outcome != "rejected"
        },
    )


def _interaction(received: wire.InteractionIn, *, arrived_ms: int) -> Interaction:
    user_id, item_id = UserId(received.user_id), ItemId(received.item_id)
    timestamp_ms = arrived_ms if received.timestamp_ms is None else received.timestamp_ms
    event_id = received.event_id or derive_event_id(user_id, item_id, timestamp_ms)
    return Interaction(user_id, item_id, timestamp_ms, event_id)


def _fault(timestamp_ms: int, now_ms: int) -> str | None:
    if timestamp_ms < 0:
        return "the timestamp is negative; give milliseconds since the epoch"
    if timestamp_ms > now_ms + MAX_AHEAD_MS:
        return (
            "the timestamp is more than a day in the future; give milliseconds since the epoch and "
            "check the sender's clock"
        )
    return None
