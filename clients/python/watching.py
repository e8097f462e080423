"""Watching a preference: what to ask next and what a response means, over many connections.

Both clients watch by these rules. They differ in how they connect and wait (`client.py`).
"""

from collections.abc import Iterator
from typing import Any

import httpx
from httpx_sse import ServerSentEvent

from clients.python import routes
from clients.python.errors import UnknownUser
from clients.python.retries import Tries
from clients.python.routes import Call
from services.core import wire

# The server sends comments more often than this.
_LONGEST_SILENCE_SECONDS = 60.0


class Watch:
    """One watched preference. Its tries begin again when a connection that worked is lost."""

    def __init__(self, call: Call[httpx.Response], after_version: int | None, tries: Tries) -> None:
        """`after_version` is the version of the preference that the caller has."""
        self.is_over = False
        self._call = call
        self._tries = tries
        self._last_id = "" if after_version is None else str(after_version)
        self._asked_seconds = 0.0
        self._was_known = False
        self._stream: httpx.Response | None = None

    def request(self, timeout: httpx.Timeout) -> dict[str, Any]:
        """The arguments of `connect_sse` for the next connection."""
        bounds = timeout.as_dict()
        bounds["read"] = max(bounds["read"] or 0.0, _LONGEST_SILENCE_SECONDS)
        return {
            **self._call.request,
            "headers": {"Last-Event-ID": self._last_id} if self._last_id else {},
            "timeout": httpx.Timeout(**bounds),
        }

    def opens(self, response: httpx.Response) -> bool:
        """Whether this is the stream. A success that is none raises ServerUnreachable."""
        if response.is_success:
            self._stream = self._call.answer(response)
            self._was_known = True
        return response.is_success

    def updates(self, event: ServerSentEvent) -> Iterator[wire.PreferenceResponse]:
        """The preference, if the event has one. At the event `forgotten` the watch is over."""
        self._last_id = event.id or self._last_id
        if event.retry is not None:
            self._asked_seconds = max(0.0, event.retry / 1000)
        if event.event == "forgotten":
            self.is_over = True
        elif event.event == "preference" and event.data and self._stream is not None:
            yield routes.read_model(self._stream, wire.PreferenceResponse, event.data)

    def pause_seconds(self, outcome: httpx.Response | httpx.TransportError) -> float:
        """How long to wait after a refusal, a failure or a lost stream before connecting again.

        A user who was forgotten between two connections ends the watch. Raises the outcome if
        there is no further try.
        """
        stream, self._stream = self._stream, None
        if stream is not None:
            if stream.num_bytes_downloaded or isinstance(outcome, httpx.ReadTimeout):
                self._tries.begin_again()
        elif isinstance(outcome, httpx.Response):
            if not self._tries.is_retryable_status_code(outcome.status_code):
                problem = routes.problem_of(outcome)
                if not (isinstance(problem, UnknownUser) and self._was_known):
                    raise problem
                self.is_over = True
                return 0.0
        elif not self._tries.is_retryable_exception(outcome):
            raise outcome
        if self._tries.is_exhausted():
            raise routes.problem_of(outcome) if isinstance(outcome, httpx.Response) else outcome
        self._tries.increment()
        return self._tries.pause_seconds(outcome, least_seconds=self._asked_seconds)


def stream_ended() -> httpx.TransportError:
    """The outcome of a stream that ends without the event `forgotten`."""
    return httpx.RemoteProtocolError("the stream ended")
