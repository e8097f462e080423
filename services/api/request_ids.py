"""The id that ties a request's answer, its log lines and its problem document together."""

import re
import uuid
from contextvars import ContextVar

HEADER = "X-Request-Id"

_FROM_CALLER = re.compile(r"[A-Za-z0-9._-]{1,64}")
_current: ContextVar[str] = ContextVar("request_id", default="")


def current_request_id() -> str:
    """The id of the request in hand, "" outside one."""
    return _current.get()


def begin_request(header: str | None) -> str:
    """Take the caller's id if it is harmless in a log, else make one."""
    request_id = (
        header if header is not None and _FROM_CALLER.fullmatch(header) else uuid.uuid4().hex[:16]
    )
    _current.set(request_id)
    return request_id
