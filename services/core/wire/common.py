"""Shared by the bodies of the HTTP API: bounds, types of fields, and the two base classes."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from services.core.ids import ID_PATTERN, MAX_ID_CHARS, NAME_PATTERN

MAX_K = 100
DEFAULT_K = 10
MAX_CANDIDATES = 1000
MAX_INTERACTIONS = 1000
MIN_TIMEOUT_SECONDS = 0.05
MAX_TIMEOUT_SECONDS = 60.0
MAX_TITLE_INPUT_CHARS = 10_000
MAX_URL_CHARS = 2048
# 20 MiB of image (the most that is decoded) in base64.
MAX_IMAGE_BASE64_CHARS = 4 * ((20 * 1024 * 1024 + 2) // 3)
# What a double holds exactly: Redis scripts count in doubles.
MAX_TIMESTAMP_MS = 2**53 - 1
MAX_VERSION = 2**53 - 1
MAX_ARMS = 10


def _whole(value: object) -> object:
    """JSON has one kind of number: 7.0 is an integer as well as 7."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Comes last, with the bounds on the type: otherwise pydantic leaves them out of the schema.
_WHOLE = BeforeValidator(_whole)

K = Annotated[int, Field(ge=1, le=MAX_K), _WHOLE]
NumScored = Annotated[int, Field(ge=1, le=MAX_CANDIDATES), _WHOLE]
TimestampMs = Annotated[int, Field(ge=-MAX_TIMESTAMP_MS, le=MAX_TIMESTAMP_MS), _WHOLE]
Version = Annotated[int, Field(ge=1, le=MAX_VERSION), _WHOLE]
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS, pattern=ID_PATTERN)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=NAME_PATTERN)]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Answer(BaseModel):
    """The base class of response bodies."""

    # Pydantic before 2.10 warns of fields named `model_...` unless that prefix is free.
    model_config = ConfigDict(frozen=True, protected_namespaces=())


def example(**fields: Any) -> ConfigDict:
    """A model configuration with these fields as the example in the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": [fields]})
