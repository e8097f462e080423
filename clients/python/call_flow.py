"""What a client does for one call, decided step by step without a network or a clock of its own.

A conversation is a generator. It yields what is to be done next (send, read on, pause) and is sent
what came of it; the transports of `transports.py` do it, one blocking and one asynchronous. So both
clients try again, wait and watch by the same rules, which are these.
"""

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import httpx

from clients.python import routes
from clients.python.errors import ProblemError, ServerUnreachable, StillUpdating, UnknownUser
from clients.python.event_stream import EventStream
from clients.python.retries import (
    PUT_OFF,
    Retries,
    Tries,
    failed_on_the_way,
    retry_after_seconds,
)
from clients.python.routes import Answer, Call
from services.core import wire

_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request, and read its answer whole unless it is `streamed` and a success."""

    call: Call[Any]
    last_event_id: str = ""
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class ReadOn:
    """Read the next piece of the streamed answer; b"" at its end."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for a while."""

    seconds: float


Step: TypeAlias = Send | ReadOn | Pause
Outcome: TypeAlias = httpx.Response | bytes | httpx.TransportError | None
Steps: TypeAlias = Generator[Step, Outcome, Answer]
Updates: TypeAlias = Generator[Step | wire.PreferenceResponse, Outcome, None]


@dataclass(frozen=True, slots=True)
class Conversations:
    """Conversations with one server, whose address stands in messages."""

    server: str
    retries: Retries

    def ask(self, call: Call[Answer]) -> Steps[Answer]:
        """Send the call, again if that is allowed and helps, and read its answer."""
        response = yield from self._send(Send(call), Tries(self.retries))
        return call.read(response)

    def wait_for_version(
        self, user_id: str, version: int, timeout_seconds: float
    ) -> Steps[wire.PreferenceResponse]:
        """Ask for the preference until it covers this version; StillUpdating if that takes long."""
        give_up = time.monotonic() + timeout_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            found = yield from self.ask(routes.preference(user_id))
            if found.preference_version >= version:
                return found
            if time.monotonic() + pause > give_up:
                raise StillUpdating(
                    f"the preference of user {user_id!r} covers {found.preference_version} of "
                    f"{version} interactions after {timeout_seconds} s; is a worker running?"
                )
            yield Pause(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def watch_preference(self, user_id: str, after_version: int | None) -> Updates:
        """Every update of the preference, over as many connections as it takes.

        Ends when the user is forgotten. A connection that was heard of, or merely silent, begins
        the tries anew when it is cut.
        """
        call = routes.preference_events(user_id)
        last_id = "" if after_version is None else str(after_version)
        tries = Tries(self.retries)
        was_known = False
        while True:
            try:
                response = yield from self._send(Send(call, last_id, streamed=True), tries)
            except UnknownUser:
                if was_known:  # forgotten between two connections
                    return
                raise
            call.read(response)
            was_known = True
            events = EventStream(last_id)
            was_heard = False
            while isinstance(outcome := (yield ReadOn()), bytes) and outcome:
                was_heard = True
                for event in events.feed(outcome):
                    if event.name == "forgotten":
                        return
                    if event.name == "preference":
                        yield routes.read_model(response, wire.PreferenceResponse, event.data)
            last_id = events.last_id
            if was_heard or isinstance(outcome, httpx.ReadTimeout):
                tries = Tries(self.retries)
            pause = tries.pause_before_next(events.retry_seconds)
            if pause is None:
                self._give_up(call, outcome, tries)
            yield Pause(pause)

    def _send(self, request: Send, tries: Tries) -> Steps[httpx.Response]:
        """The answer of the try that succeeded, or the error of the last."""
        while True:
            outcome = yield request
            if isinstance(outcome, httpx.Response) and outcome.is_success:
                return outcome
            pause = None
            if request.call.repeatable and _may_fare_better(outcome):
                pause = tries.pause_before_next(_asked_seconds(outcome))
            if pause is None:
                self._give_up(request.call, outcome, tries)
            yield Pause(pause)

    def _give_up(self, call: Call[Any], outcome: Outcome, tries: Tries) -> NoReturn:
        if isinstance(outcome, httpx.Response):
            raise ProblemError.of(
                routes.read_model(outcome, wire.Problem),
                retry_after_seconds=retry_after_seconds(outcome),
            )
        error = outcome if isinstance(outcome, httpx.TransportError) else None
        why = "the stream ends" if error is None else f"{type(error).__name__}: {error}"
        tried = f", after {tries.num_made} tries" if tries.num_made > 1 else ""
        raise ServerUnreachable(
            f"{call.method} {call.path}: no answer from {self.server} ({why}{tried})"
        ) from error


def _may_fare_better(outcome: Outcome) -> bool:
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in PUT_OFF
    return isinstance(outcome, httpx.TransportError) and failed_on_the_way(outcome)


def _asked_seconds(outcome: Outcome) -> float:
    asked = retry_after_seconds(outcome) if isinstance(outcome, httpx.Response) else None
    return asked or 0.0
