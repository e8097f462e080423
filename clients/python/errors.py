"""What a client raises, as one tree.

    ClientError
    ├── ServerUnreachable     no answer came, or one that is not this API's
    ├── StillUpdating          the preference did not reach the version in time
    └── ProblemError          the server answered with a problem document, here as `problem`
        ├── InvalidRequest      the request does not fit the schema
        ├── BodyTooLarge        more bytes than the server takes
        ├── Unauthenticated     no API key, or none that is valid
        ├── Forbidden           an API key without the scope that this needs
        ├── RateLimited         more than the key's rate allows
        ├── TooManyStreams      as many preferences are watched as may be
        ├── BacklogFull         too many interactions wait for an update
        ├── StateUnavailable    the server's Redis is away
        ├── StateConflict       somebody else wrote first
        ├── UnknownUser         a user without interactions
        ├── UnknownItem         an item that the catalogue does not have
        ├── RowRefused          a title of which nothing is left
        ├── ImageRefused        a picture that cannot be used
        ├── UrlRefused          an address that the server will not fetch
        ├── UnknownAdapter      a name that no adapter has
        └── AdapterRefused      an adapter that may not serve, or not now

A class of ProblemError is one `type` of problem documents; a type without a class of its own is
raised as ProblemError.
"""

from typing import ClassVar

from services.core import wire


class ClientError(Exception):
    """Root of what a client raises."""


class ServerUnreachable(ClientError):
    """No answer came, or one that is not this API's."""


class StillUpdating(ClientError):
    """The preference did not reach the version in time."""


class ProblemError(ClientError):
    """The server answered with a problem document, here as `problem`."""

    type: ClassVar[str] = ""

    def __init__(self, problem: wire.Problem, *, retry_after_seconds: float | None = None) -> None:
        """The message names the problem's title, detail and request id.

        `retry_after_seconds`: when the server would like to be asked again, if it said so.
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
    """No API key came, or none that is valid."""

    type = "/problems/unauthenticated"


class Forbidden(ProblemError):
    """The API key has not the scope that this needs."""

    type = "/problems/forbidden"


class RateLimited(ProblemError):
    """The API key has used up what its rate allows."""

    type = "/problems/rate-limited"


class TooManyStreams(ProblemError):
    """The server has as many streams open as it may."""

    type = "/problems/too-many-streams"


class BacklogFull(ProblemError):
    """Too many interactions wait for an update; send these again later."""

    type = "/problems/backlog-full"


class StateUnavailable(ProblemError):
    """The server's Redis is away."""

    type = "/problems/state-unavailable"


class StateConflict(ProblemError):
    """Somebody else wrote first; read again and repeat the request."""

    type = "/problems/state-conflict"


class UnknownUser(ProblemError):
    """A user without interactions."""

    type = "/problems/unknown-user"


class UnknownItem(ProblemError):
    """An item that the catalogue does not have."""

    type = "/problems/unknown-item"


class RowRefused(ProblemError):
    """A title of which nothing is left once markup is removed."""

    type = "/problems/row-refused"


class ImageRefused(ProblemError):
    """A picture that cannot be used."""

    type = "/problems/image-refused"


class UrlRefused(ProblemError):
    """A picture's address that the server will not fetch."""

    type = "/problems/url-refused"


class UnknownAdapter(ProblemError):
    """A name that no adapter of the server has."""

    type = "/problems/unknown-adapter"


class AdapterRefused(ProblemError):
    """An adapter that may not serve there, or not now."""

    type = "/problems/adapter-refused"


_CLASSES = {kind.type: kind for kind in ProblemError.__subclasses__()}
