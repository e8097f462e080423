"""What is known of a user: read the preference, forget the user."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from services.api.guard import GuardedRoute, needs
from services.api.parts import AppParts
from services.api.problems import INVALID_REQUEST, documented
from services.core import wire
from services.core.api_keys import Scope
from services.core.errors import StateError, StateUnavailable, UnknownUser
from services.core.records import UserId

router = APIRouter(tags=["users"], route_class=GuardedRoute)

PathUserId = Annotated[wire.Id, Path(description="The user's id, percent-encoded.")]


@router.get(
    "/users/{user_id:id}/preference",
    summary="Read a user's preference",
    responses=documented(UnknownUser, StateUnavailable, StateError, INVALID_REQUEST),
)
@needs(Scope.READ)
async def read_preference(user_id: PathUserId, parts: AppParts) -> wire.PreferenceResponse:
    """The written preference, what it covers, and how it came about block after block."""
    user = await parts.store.load_user(UserId(user_id))
    if user is None:
        raise UnknownUser(f"user {user_id!r} has no interactions; send some to POST /interactions")
    return wire.PreferenceResponse(
        user_id=user.user_id,
        preference=user.preference,
        history_version=user.version,
        preference_version=user.folded_version,
        num_blocks=user.num_dropped_blocks + len(user.state.blocks),
        tail=list(user.state.tail),
        timeline=[
            wire.PreferenceBlock(
                number=entry.number,
                item_ids=list(entry.item_ids),
                preference=entry.preference,
                written_ms=entry.written_ms,
            )
            for entry in user.timeline
        ],
    )


@router.delete(
    "/users/{user_id:id}",
    status_code=204,
    summary="Forget a user",
    responses=documented(StateUnavailable, StateError, INVALID_REQUEST),
)
@needs(Scope.ADMIN)
async def forget(user_id: PathUserId, parts: AppParts) -> Response:
    """Remove every trace of the user. Forgetting an unknown user succeeds: nothing is left."""
    await parts.store.forget_user(UserId(user_id))
    return Response(status_code=204)
