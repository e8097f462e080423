"""The requests that a piece of work belongs to: their ids and their trace.

    request -> context of its task -> stream record -> context of the update -> model server

Every log line on the way contains the ids, so that one `grep` follows a request through API, worker
and engine. An update belongs to all requests whose interactions it covers.
"""

import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import structlog

from services.telemetry import tracing

HEADER = "X-Request-Id"
# An update of many requests names the newest ones only.
MAX_REQUESTS = 16

_HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT = re.compile(r"[0-9a-f-]{55}")
_current: ContextVar[tuple[str, ...]] = ContextVar("request_ids", default=())


@dataclass(frozen=True, slots=True)
class Origin:
    """One request, as a stream record names it; "" for an unknown field."""

    request_id: str = ""
    traceparent: str = ""

    def __str__(self) -> str:
        """The stream record's field: `ID` or `ID TRACEPARENT`."""
        return f"{self.request_id} {self.traceparent}".rstrip()

    @classmethod
    def parse(cls, text: str) -> "Origin":
        """Read what `str` gave. Ignores anything else, because it goes into logs and headers."""
        request_id, _, traceparent = text.partition(" ")
        return cls(
            request_id if _HARMLESS.fullmatch(request_id) else "",
            traceparent if _TRACEPARENT.fullmatch(traceparent) else "",
        )


def current_request_id() -> str:
    """The id of the current request, of several the newest; "" outside of any."""
    return _current.get()[-1] if _current.get() else ""


def current() -> Origin:
    """The current request, for work that it queues."""
    return Origin(current_request_id(), tracing.traceparent())


def request_id_from(header: str | None) -> str:
    """The caller's id if it is safe in a log, else a new one."""
    if header is not None and _HARMLESS.fullmatch(header):
        return header
    return uuid.uuid4().hex[:16]


@contextmanager
def serving(request_id: str) -> Iterator[None]:
    """The work inside belongs to this request."""
    with (
        _ids_set((request_id,)),
        structlog.contextvars.bound_contextvars(request_id=request_id),
    ):
        yield


@contextmanager
def working_for(origins: Iterable[Origin]) -> Iterator[Sequence[Origin]]:
    """The work inside belongs to all of these, oldest first; yields the newest of them."""
    known = dict.fromkeys(origin for origin in origins if origin.request_id)
    newest = tuple(known)[-MAX_REQUESTS:]
    request_ids = tuple(origin.request_id for origin in newest)
    bound = {"request_ids": list(request_ids)} if request_ids else {}
    with _ids_set(request_ids), structlog.contextvars.bound_contextvars(**bound):
        yield newest


def headers() -> dict[str, str]:
    """Headers of a prompt to a model server: an id that begins with the request's, and the trace.

    The rest of the id is different for every prompt: a server treats two running prompts with the
    same id as one.
    """
    request_id = current_request_id()
    own = {HEADER: f"{request_id}-{uuid.uuid4().hex[:8]}"} if request_id else {}
    return own | tracing.headers()


@contextmanager
def _ids_set(request_ids: tuple[str, ...]) -> Iterator[None]:
    token = _current.set(request_ids)
    try:
        yield
    finally:
        _current.reset(token)
