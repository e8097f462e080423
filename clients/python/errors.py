"""The errors of a client, as one tree.

    ClientError
    ├── ServerUnreachable     no response, or one that is not of this API
    ├── StillUpdating          the preference did not reach the version in time
    └── ProblemError          the server answered with a problem document, here as `problem`
        ├── InvalidRequest      the request does not fit the schema
        ├── BodyTooLarge        more bytes than the server takes
        ├── Unauthenticated     no valid API key
        ├── Forbidden           the API key lacks the scope of this route
        ├── RateLimited         more than the key's rate allows
        ├── TooManyStreams      the server allows no more open streams
        ├── BacklogFull         too many interactions wait for an update
        ├── StateUnavailable    the server cannot reach its Redis
        ├── StateConflict       another request changed the same state first
        ├── UnknownUser         a user without interactions
        ├── UnknownItem         an item that is not in the catalogue
        ├── RowRefused          a title that has no text left once it is cleaned
        ├── ImageRefused        an image that cannot be used
        ├── UrlRefused          an address that the server does not fetch
        ├── UnknownAdapter      a name that no adapter has
        └── AdapterRefused      an adapter that cannot serve there or now

Each class of ProblemError is for one `type` of problem document. A type without a class is raised
as ProblemError.
"""

from typing import ClassVar

from services.core import wire


class ClientError(Exception):
    """Root of the errors of a client."""


class ServerUnreachable(ClientError):
    """No response came, or one that is not of this API."""


class StillUpdating(ClientError):
    """The preference did not reach the version in time."""


class ProblemError(ClientError):
    """The server answered with a problem document, here as `problem`."""

    type: ClassVar[str] = ""

    def __init__(self, problem: wire.Problem, *, retry_after_seconds: float | None = None) -> None:
        """The message names the problem's title, detail and request id.

        `retry_after_seconds`: how long the server asks to wait, if it does.
        """
        super().__init__(f"{problem.title}: {problem.detail} (request {problem.request_id})")
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds

    @classmethod
    def of(
        cls, problem: wire.Problem, *, retry_after_seconds: float | None = None
    ) -> "ProblemError":
        """The error of the class that the problem's type has."""
        kind = _CLASSES.get(problem.type, cls)
        return kind(problem, retry_after_seconds=retry_after_seconds)


class InvalidRequest(ProblemError):
    """The request does not fit the schema; `problem.errors` says where."""

    type = "/problems/invalid-request"


class BodyTooLarge(ProblemError):
    """The body has more bytes than the server takes."""

    type = "/problems/body-too-large"


class Unauthenticated(ProblemError):
    """The request has no valid API key."""

    type = "/problems/unauthenticated"


class Forbidden(ProblemError):
    """The API key lacks the scope of this route."""

    type = "/problems/forbidden"


class RateLimited(ProblemError):
    """The API key has sent more than its rate allows."""

    type = "/problems/rate-limited"


class TooManyStreams(ProblemError):
    """The server allows no more open streams."""

    type = "/problems/too-many-streams"


class BacklogFull(ProblemError):
    """Too many interactions wait for an update; send these again later."""

    type = "/problems/backlog-full"


class StateUnavailable(ProblemError):
    """The server cannot reach its Redis."""

    type = "/problems/state-unavailable"


class StateConflict(ProblemError):
    """Another request changed the same state first; read it again and repeat the request."""

    type = "/problems/state-conflict"


class UnknownUser(ProblemError):
    """A user without interactions."""

    type = "/problems/unknown-user"


class UnknownItem(ProblemError):
    """An item that is not in the catalogue."""

    type = "/problems/unknown-item"


class RowRefused(ProblemError):
    """A title that has no text left once markup is removed."""

    type = "/problems/row-refused"


class ImageRefused(ProblemError):
    """An image that cannot be used."""

    type = "/problems/image-refused"


class UrlRefused(ProblemError):
    """An image address that the server does not fetch."""

    type = "/problems/url-refused"


class UnknownAdapter(ProblemError):
    """The server has no adapter of this name."""

    type = "/problems/unknown-adapter"


class AdapterRefused(ProblemError):
    """An adapter that cannot serve there or now."""

    type = "/problems/adapter-refused"


_CLASSES = {kind.type: kind for kind in ProblemError.__subclasses__()}
