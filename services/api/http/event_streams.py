"""Streams of server-sent events: a user's preference as it changes.

    id: 7
    event: preference
    data: {"user_id": "u42", "preference": ...}

A stream reads the user's two versions a few times a second, and the rest only when one of them
changes. While Redis is unavailable it sends keep-alive comments only. It ends when the user is
forgotten, after `stream_seconds`, or when the server stops; clients reconnect with the id of the
last event that they got.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from services.api.limits import Limits
from services.api.monitoring.metrics import Metrics
from services.core.errors import StateError, TooManyStreams
from services.state.records import UserRecord
from services.state.user_store import Store

MEDIA_TYPE = "text/event-stream"
# Of one event, for the OpenAPI document.
SCHEMA = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["preference", "forgotten"]},
        "id": {"type": "string", "description": "The preference's version."},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}
KEEP_ALIVE = ": keep-alive\n\n"
FORGOTTEN = "event: forgotten\ndata: {}\n\n"

# An event's data: a user's preference as JSON in one line.
Render = Callable[[UserRecord], str]


@dataclass(eq=False, slots=True)
class Streams:
    """The open streams of one process."""

    store: Store
    limits: Limits
    metrics: Metrics
    num_open: int = field(default=0, init=False)
    ended: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def end_all(self) -> None:
        """End every stream, because the server stops."""
        self.ended.set()

    def open(self, user: UserRecord, render: Render, last_id: str | None) -> AsyncIterator[str]:
        """Events of a user who was just read; TooManyStreams if no more may be open.

        If `last_id` is the current preference's version, the first event is left out.
        """
        if self.num_open >= self.limits.max_streams:
            self.metrics.access_refusals.labels(TooManyStreams.__name__).inc()
            raise TooManyStreams(
                f"{self.num_open} streams are open and {self.limits.max_streams} may; close one "
                "or try again later"
            )
        return self._counted(self._events(user, render, last_id))

    async def _counted(self, events: AsyncIterator[str]) -> AsyncIterator[str]:
        self.num_open += 1
        try:
            async for event in events:
                yield event
        finally:
            self.num_open -= 1

    async def _events(
        self, user: UserRecord, render: Render, last_id: str | None
    ) -> AsyncIterator[str]:
        clock = asyncio.get_running_loop().time
        end_at = clock() + self.limits.stream_seconds
        # Send something at once, so that the client sees that the stream is open.
        yield KEEP_ALIVE if last_id == str(user.preference_version) else _event(user, render)
        sent_at = clock()
        while clock() < end_at and not await self._pause():
            seen = await self._look_again(user)
            if seen is None:
                yield FORGOTTEN
                return
            if seen is not user:
                user = seen
                yield _event(user, render)
            elif clock() - sent_at >= self.limits.stream_silence_seconds:
                yield KEEP_ALIVE
            else:
                continue
            sent_at = clock()

    async def _look_again(self, user: UserRecord) -> UserRecord | None:
        """The user as of now, None if forgotten, `user` itself if unchanged or Redis fails."""
        try:
            versions = await self.store.load_versions(user.user_id)
            if versions == (user.version, user.preference_version):
                return user
            return await self.store.load_user(user.user_id)
        except StateError:
            return user

    async def _pause(self) -> bool:
        """Wait until the next look; True if the streams were ended meanwhile."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), self.limits.stream_poll_seconds)
        return self.ended.is_set()


def _event(user: UserRecord, render: Render) -> str:
    return f"id: {user.preference_version}\nevent: preference\ndata: {render(user)}\n\n"
