"""What a piece of work is done for: the ids of the requests that asked for it, and their trace.

    request -> context of its task -> stream record -> context of the update -> model server

Every log line on the way bears the ids, so that one `grep` follows a request through API, worker
and engine. An update is done for all requests whose interactions it covers.
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
# Of a burst of requests that one update takes together, the newest are named.
MAX_REQUESTS = 16

_HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACEPARENT = re.compile(r"[0-9a-f-]{55}")
_current: ContextVar[tuple[str, ...]] = ContextVar("request_ids", default=())


@dataclass(frozen=True, slots=True)
class Origin:
    """One request, as a stream record names it; "" for what is not known."""

    request_id: str = ""
    traceparent: str = ""

    def __str__(self) -> str:
        """The stream record's field: `ID` or `ID TRACEPARENT`."""
        return f"{self.request_id} {self.traceparent}".rstrip()

    @classmethod
    def parse(cls, text: str) -> "Origin":
        """What `str` gave. Of anything else nothing is taken: it goes into logs and headers."""
        request_id, _, traceparent = text.partition(" ")
        return cls(
            request_id if _HARMLESS.fullmatch(request_id) else "",
            traceparent if _TRACEPARENT.fullmatch(traceparent) else "",
        )


def current_request_id() -> str:
    """The id of the request in hand, of several the newest; "" outside any."""
    return _current.get()[-1] if _current.get() else ""


def current() -> Origin:
    """What the work that is asked for here and now is done for."""
    return Origin(current_request_id(), tracing.traceparent())


def request_id_from(header: str | None) -> str:
    """The caller's id if it is harmless in a log, else a new one."""
    if header is not None and _HARMLESS.fullmatch(header):
        return header
    return uuid.uuid4().hex[:16]


@contextmanager
def serving(request_id: str) -> Iterator[None]:
    """What happens inside is done for this request."""
    with (
        _ids_set((request_id,)),
        structlog.contextvars.bound_contextvars(request_id=request_id),
    ):
        yield


@contextmanager
def working_for(origins: Iterable[Origin]) -> Iterator[Sequence[Origin]]:
    """What happens inside is done for all of these, oldest first; gives the newest of them."""
    known = dict.fromkeys(origin for origin in origins if origin.request_id)
    newest = tuple(known)[-MAX_REQUESTS:]
    request_ids = tuple(origin.request_id for origin in newest)
    bound = {"request_ids": list(request_ids)} if request_ids else {}
    with _ids_set(request_ids), structlog.contextvars.bound_contextvars(**bound):
        yield newest


def headers() -> dict[str, str]:
    """What a model server is told with a prompt: an id that begins with the request's, the trace.

    The rest of the id is the prompt's own, since a server takes the ids of two prompts in hand for
    one and the same prompt if they are equal.
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
