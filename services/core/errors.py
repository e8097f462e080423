"""The errors that this system raises on purpose, as one tree.

    MsrError
    ├── InputError               the caller's data or arguments
    │   ├── RowRefused             one row of a file; quarantined, never stops a step
    │   ├── ImageRefused           one image; quarantined, never stops a step
    │   ├── UrlRefused             an address that the fetch rules exclude
    │   ├── MalformedFile          a file that cannot be read, or that lacks a column
    │   ├── EmptyDataset           nothing is left to work on
    │   ├── HistoryTooShort        a history with no target item to hold out
    │   ├── UnknownItem            an item id that the catalogue does not have
    │   ├── NoCover                an item without an image
    │   ├── UnknownUser            a user id without any state
    │   └── UnknownAdapter         an adapter name that is not known here
    ├── ArtifactError            what steps read and write
    │   ├── ArtifactMissing        an earlier step has not run
    │   ├── ArtifactMismatch       made by other definitions, or from other inputs
    │   ├── AdapterRefused         an adapter that cannot serve here, or not now
    │   ├── TargetLeak             a preference that has seen its target item
    │   ├── PersonasUnreadable     a damaged list of personas
    │   └── FolderNotWritable      a folder that cannot be written
    ├── EngineError              the model
    │   ├── EngineUnavailable      not reachable or closed
    │   ├── EngineOverloaded       the queue is full; try later
    │   ├── EngineTimeout          no answer in time
    │   ├── EngineRefused          the engine rejected this prompt
    │   ├── ModelUnusable          a checkpoint or adapter that cannot serve this method
    │   └── AnswerTokenMissing     no log-probability for Yes or No
    ├── StateError               Redis
    │   ├── StateUnavailable       not reachable
    │   ├── StateConflict          another process saved first
    │   └── BacklogFull            more preference updates wait than the bound allows
    └── AccessError              the caller's key, its scopes and its rate
        ├── Unauthenticated        no API key, or none that is valid
        ├── TooManyStreams         the limit of open event streams is reached
        ├── Forbidden              a key without the needed scope
        └── RateLimited            more than the key's rate allows

A message says what failed, on which id, and what to do. Foreign exceptions are translated once,
where the library is called. Only `services/api/http/problems.py` knows HTTP status codes.
"""


class MsrError(Exception):
    """Root of the tree: anything this system raises on purpose."""


class InputError(MsrError):
    """The caller's data or arguments are at fault."""


class RowRefused(InputError):
    """One row of a file cannot be used."""


class ImageRefused(InputError):
    """One image cannot be used."""


class UrlRefused(InputError):
    """An address that the fetch rules exclude."""


class MalformedFile(InputError):
    """A whole file cannot be used."""


class EmptyDataset(InputError):
    """No row is left after reading and filtering."""


class HistoryTooShort(InputError):
    """A history that leaves no target item or nothing before it."""


class UnknownItem(InputError):
    """An item id that the catalogue does not have."""


class NoCover(InputError):
    """An item that has no image to show."""


class UnknownUser(InputError):
    """A user id without any state."""


class UnknownAdapter(InputError):
    """An adapter name that is not known here."""


class ArtifactError(MsrError):
    """An artifact is absent, contradictory or cannot be written."""


class ArtifactMissing(ArtifactError):
    """The step that makes this artifact has not finished."""


class ArtifactMismatch(ArtifactError):
    """The artifact was made by other definitions or from other inputs."""


class AdapterRefused(ArtifactError):
    """An adapter that cannot serve here, or not now; the operator decides what to do."""


class TargetLeak(ArtifactError):
    """A preference was built from a history that contains its own target item."""


class PersonasUnreadable(ArtifactError):
    """The list of personas in the data folder is damaged."""


class FolderNotWritable(ArtifactError):
    """The folder for artifacts or state cannot be written."""


class EngineError(MsrError):
    """The model failed."""


class EngineUnavailable(EngineError):
    """The engine cannot be reached or is closed."""


class EngineOverloaded(EngineError):
    """The engine's queue is full."""


class EngineTimeout(EngineError):
    """The engine gave no answer in time."""


class EngineRefused(EngineError):
    """The engine rejected this prompt."""


class ModelUnusable(EngineError):
    """A checkpoint or adapter that cannot serve this method."""


class AnswerTokenMissing(EngineError):
    """The engine returned no log-probability for Yes or for No."""


class StateError(MsrError):
    """The store of online state failed."""


class StateUnavailable(StateError):
    """Redis cannot be reached."""


class StateConflict(StateError):
    """The state changed between being read and being saved."""


class BacklogFull(StateError):
    """More preference updates wait than the bound allows."""


class AccessError(MsrError):
    """The caller may not do this, or not now."""


class Unauthenticated(AccessError):
    """The request has no API key, or an invalid one."""


class Forbidden(AccessError):
    """The API key lacks the scope that the request needs."""


class TooManyStreams(AccessError):
    """The limit of open event streams is reached."""


class RateLimited(AccessError):
    """The API key has used up what its rate allows."""

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        """`retry_after_seconds`: how long until the same request is allowed."""
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
