"""The Python client: `from clients.python import MsrClient`. Needs httpx and pydantic alone."""

from clients.python.client import (
    ClientError,
    MsrClient,
    ProblemError,
    ServerUnreachable,
    StillFolding,
)

__all__ = ["ClientError", "MsrClient", "ProblemError", "ServerUnreachable", "StillFolding"]
