"""Users: find them, read preference and history, follow the preference, forget them."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import StreamingResponse

from services.api.dependencies import AppDependencies, Dependencies
from services.api.http import event_streams
from services.api.http.problems import INVALID_REQUEST, documented
from services.api.route_guard import GuardedRoute, needs
from services.core import wire
from services.core.api_keys import Scope
from services.core.data_folder.personas import read_personas
from services.core.errors import (
    PersonasUnreadable,
    StateError,
    StateUnavailable,
    TooManyStreams,
    UnknownUser,
)
from services.core.records import Interaction, UserId
from services.core.wire import console
from services.state.records import UserRecord

router = APIRouter(tags=["users"], route_class=GuardedRoute)

# As many covers as a card has room for.
NUM_TAKEN_BY_A_PERSONA = 4

PathUserId = Annotated[wire.Id, Path(description="The user's id, percent-encoded.")]


@router.get(
    "/users",
    summary="Find users",
    responses=documented(StateUnavailable, StateError, INVALID_REQUEST),
)
@needs(Scope.READ)
async def find(
    deps: AppDependencies,
    prefix: Annotated[console.Search, Query(description="The beginning of the ids.")] = "",
    limit: Annotated[int, Query(ge=1, le=console.MAX_LISTED_USERS)] = 20,
    random: Annotated[
        bool, Query(description="A random sample instead of the first ones.")
    ] = False,
) -> console.UsersResponse:
    """Users by the beginning of their id, in order, each with the preference. New users are found
    within seconds.
    """
    found = await deps.directory.find_users(prefix, limit=limit, at_random=random)
    records = await deps.store.load_users(found.user_ids)
    return console.UsersResponse(
        users=[
            console.UserEntry(
                user_id=user.user_id,
                preference=user.preference,
                history_version=user.version,
                preference_version=user.preference_version,
            )
            for user_id in found.user_ids
            if (user := records.get(user_id)) is not None
        ],
        num_matching=found.num_matching,
        num_users=found.num_users,
        complete=found.complete,
    )


@router.get(
    "/personas",
    summary="Users who are worth a look",
    responses=documented(PersonasUnreadable, StateUnavailable, StateError),
)
@needs(Scope.READ)
async def personas(deps: AppDependencies) -> console.PersonasResponse:
    """Those that `personas.json` in the data folder names, each with what was taken last. Without
    that file there are none, and users who are not known (any more) are left out.
    """
    listed = await asyncio.to_thread(read_personas, deps.data) if deps.data is not None else []
    users = await deps.store.load_users(UserId(persona.user_id) for persona in listed)
    known = [persona for persona in listed if persona.user_id in users]
    shown = [users[UserId(persona.user_id)] for persona in known]
    latest = await _latest(shown, NUM_TAKEN_BY_A_PERSONA, deps)
    return console.PersonasResponse(
        personas=[
            console.PersonaView(**persona.model_dump(), last_taken=taken)
            for persona, taken in zip(known, latest, strict=True)
        ]
    )


@router.get(
    "/users/{user_id:id}/preference",
    summary="Read a user's preference",
    responses=documented(UnknownUser, StateUnavailable, StateError, INVALID_REQUEST),
)
@needs(Scope.READ)
async def read_preference(user_id: PathUserId, deps: AppDependencies) -> wire.PreferenceResponse:
    """The written preference, what it covers, and its timeline block after block."""
    return _preference(await _load(UserId(user_id), deps), deps)


@router.get(
    "/users/{user_id:id}/preference/events",
    summary="Follow a user's preference",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events, until the client or the server ends them.",
            "content": {event_streams.MEDIA_TYPE: {"schema": event_streams.SCHEMA}},
        },
        **documented(UnknownUser, TooManyStreams, StateUnavailable, StateError, INVALID_REQUEST),
    },
)
@needs(Scope.READ)
async def follow_preference(
    user_id: PathUserId,
    deps: AppDependencies,
    last_event_id: Annotated[
        str | None, Header(description="On reconnecting: the last `id` received.")
    ] = None,
) -> StreamingResponse:
    """Sends an event `preference` now and whenever history or preference change: the answer of
    `GET /users/{user_id}/preference`, with the preference's version as its id. Sends `forgotten`
    and ends when the user is forgotten. Comments in between keep the stream alive. Reconnect when
    it ends.
    """
    user = await _load(UserId(user_id), deps)
    events = deps.streams.open(
        user, lambda user: _preference(user, deps).model_dump_json(), last_event_id
    )
    return StreamingResponse(events, media_type=event_streams.MEDIA_TYPE)


@router.get(
    "/users/{user_id:id}/history",
    summary="Read a user's history",
    responses=documented(UnknownUser, StateUnavailable, StateError, INVALID_REQUEST),
)
@needs(Scope.READ)
async def read_history(
    user_id: PathUserId,
    deps: AppDependencies,
    limit: Annotated[
        int, Query(ge=1, le=console.MAX_SHOWN_INTERACTIONS, description="The latest.")
    ] = 100,
) -> console.HistoryResponse:
    """The user's interactions, oldest first, with the items' titles."""
    user = await _load(UserId(user_id), deps)
    [shown] = await _latest([user], limit, deps)
    return console.HistoryResponse(
        user_id=user.user_id,
        history_version=user.version,
        num_earlier=user.version - len(shown),
        interactions=shown,
    )


@router.delete(
    "/users/{user_id:id}",
    status_code=204,
    summary="Forget a user",
    responses=documented(StateUnavailable, StateError, INVALID_REQUEST),
)
@needs(Scope.ADMIN)
async def forget(user_id: PathUserId, deps: AppDependencies) -> Response:
    """Remove every trace of the user. Forgetting an unknown user succeeds too."""
    await deps.store.forget_user(UserId(user_id))
    return Response(status_code=204)


async def _load(user_id: UserId, deps: Dependencies) -> UserRecord:
    user = await deps.store.load_user(user_id)
    if user is None:
        raise UnknownUser(f"user {user_id!r} has no interactions; send some to POST /interactions")
    return user


async def _latest(
    users: Sequence[UserRecord], num: int, deps: Dependencies
) -> list[list[console.HistoryEntry]]:
    """Each user's latest interactions, oldest first, with the items' data."""
    shown = [user.history[-num:] for user in users]
    loaded = await deps.key_scan.load_items([each.item_id for taken in shown for each in taken])
    items = {record.item.item_id: (record, has_image) for record, has_image in loaded}

    def entry(each: Interaction) -> console.HistoryEntry:
        record, has_image = items.get(each.item_id, (None, False))
        return console.HistoryEntry(
            item_id=each.item_id,
            timestamp_ms=each.timestamp_ms,
            title=record and record.item.title,
            item_version=record and record.version,
            has_image=has_image,
        )

    return [[entry(each) for each in taken] for taken in shown]


def _preference(user: UserRecord, deps: Dependencies) -> wire.PreferenceResponse:
    return wire.PreferenceResponse(
        user_id=user.user_id,
        preference=user.preference,
        history_version=user.version,
        preference_version=user.preference_version,
        writer=user.text_writer,
        by_another_model=deps.caveats.is_of_another(user),
        num_blocks=user.num_dropped_blocks + len(user.state.blocks),
        tail=list(user.state.tail),
        timeline=[
            wire.PreferenceBlock.model_validate(entry, from_attributes=True)
            for entry in user.timeline
        ],
    )
