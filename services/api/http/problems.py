"""Errors as HTTP problem documents (RFC 9457). Only this file knows status codes.

Every class of `core/errors.py` has its own row here. For a caller's mistake the document contains
the error's message. For a failure of the server the message is logged and the document contains a
general sentence, so that no address, path or internal name leaves the process.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from services.core import errors, wire
from services.telemetry.request_context import current_request_id

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
MAX_FIELD_ERRORS = 20
MAX_DETAIL_CHARS = 2000


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem. `public_detail` replaces the error's message, if that stays private.

    `challenge` says how to authenticate.
    """

    slug: str
    status: int
    title: str
    public_detail: str | None = None
    retry_after_seconds: int | None = None
    challenge: str | None = None

    @property
    def type(self) -> str:
        """The stable identifier."""
        return f"/problems/{self.slug}"


_OPERATOR = "the server is not set up for this; its log says what is missing"
_MODEL = "the model did not answer; try again later"

KINDS: Mapping[type[errors.MsrError], Kind] = {
    errors.MsrError: Kind("failed", 500, "The server failed", "its log has the reason"),
    errors.InputError: Kind("bad-input", 422, "The input cannot be used"),
    errors.RowRefused: Kind("row-refused", 422, "The row cannot be used"),
    errors.ImageRefused: Kind("image-refused", 422, "The image cannot be used"),
    errors.UrlRefused: Kind("url-refused", 403, "The address will not be fetched"),
    errors.MalformedFile: Kind("malformed-file", 422, "The file cannot be read"),
    errors.EmptyDataset: Kind("empty-dataset", 422, "Nothing is left to work on"),
    errors.HistoryTooShort: Kind("history-too-short", 422, "The history is too short"),
    errors.UnknownItem: Kind("unknown-item", 404, "Unknown item"),
    errors.NoCover: Kind("no-cover", 404, "No cover"),
    errors.UnknownUser: Kind("unknown-user", 404, "Unknown user"),
    errors.UnknownAdapter: Kind("unknown-adapter", 404, "Unknown adapter"),
    errors.ArtifactError: Kind("artifact-unusable", 503, "An artifact cannot be used", _OPERATOR),
    errors.ArtifactMissing: Kind("artifact-missing", 503, "An artifact is missing", _OPERATOR),
    errors.ArtifactMismatch: Kind("artifact-mismatch", 503, "Artifacts disagree", _OPERATOR),
    errors.AdapterRefused: Kind("adapter-refused", 409, "The adapter may not serve"),
    errors.TargetLeak: Kind("target-leak", 500, "A preference has seen its target", _OPERATOR),
    errors.PersonasUnreadable: Kind(
        "personas-unreadable",
        503,
        "The personas cannot be read",
        "personas.json in the data folder is damaged; its log says where; correct it, or delete it",
    ),
    errors.FolderNotWritable: Kind("folder-not-writable", 503, "Nowhere to write", _OPERATOR),
    errors.EngineError: Kind("engine-failed", 503, "The model failed", _MODEL, 5),
    errors.EngineUnavailable: Kind("engine-unavailable", 503, "The model is away", _MODEL, 5),
    errors.EngineOverloaded: Kind("engine-overloaded", 503, "The model is busy", _MODEL, 5),
    errors.EngineTimeout: Kind("engine-timeout", 504, "The model is late", _MODEL, 5),
    errors.EngineRefused: Kind("engine-refused", 422, "The model refuses the prompt", _MODEL),
    errors.ModelUnusable: Kind("model-unusable", 503, "The model cannot serve", _OPERATOR),
    errors.AnswerTokenMissing: Kind(
        "answer-token-missing", 502, "The model's answer lacks scores", _OPERATOR
    ),
    errors.StateError: Kind("state-failed", 500, "The store failed", "its log has the reason"),
    errors.StateUnavailable: Kind(
        "state-unavailable", 503, "The store is away", "Redis does not answer; try again", 2
    ),
    errors.StateConflict: Kind(
        "state-conflict", 409, "Somebody else wrote first", "read again and repeat the request"
    ),
    errors.BacklogFull: Kind(
        "backlog-full", 429, "Too many interactions are waiting", "send them again later", 5
    ),
    errors.AccessError: Kind("access-refused", 403, "Access refused"),
    errors.Unauthenticated: Kind(
        "unauthenticated", 401, "An API key is needed", challenge="Bearer"
    ),
    errors.Forbidden: Kind("forbidden", 403, "The API key may not do this"),
    errors.TooManyStreams: Kind(
        "too-many-streams", 429, "Too many open streams", retry_after_seconds=5
    ),
    # The error names the seconds.
    errors.RateLimited: Kind("rate-limited", 429, "Too many requests", retry_after_seconds=1),
}

INVALID_REQUEST = Kind("invalid-request", 422, "The request is not valid")
MALFORMED_BODY = Kind("malformed-body", 400, "The body is not JSON")
NOT_FOUND = Kind("not-found", 404, "No such address")
METHOD_NOT_ALLOWED = Kind("method-not-allowed", 405, "Method not allowed")
BODY_TOO_LARGE = Kind("body-too-large", 413, "The body is too large")
UNSUPPORTED_MEDIA_TYPE = Kind("unsupported-media-type", 415, "The body must be JSON")
UNEXPECTED = Kind("unexpected", 500, "The server failed", "its log has the reason")

_OF_FRAMEWORK = {
    400: MALFORMED_BODY,
    404: NOT_FOUND,
    405: METHOD_NOT_ALLOWED,
    413: BODY_TOO_LARGE,
    415: UNSUPPORTED_MEDIA_TYPE,
    422: INVALID_REQUEST,
}


def kind_of(error: errors.MsrError) -> Kind:
    """The row of an error's class; a parity test keeps every class of the tree in the table."""
    return next(KINDS[cls] for cls in type(error).__mro__ if cls in KINDS)


def problem_response(
    kind: Kind,
    scope: Mapping[str, Any],
    *,
    detail: str | None = None,
    field_errors: Sequence[wire.FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The answer to the request of this scope; `detail` is for kinds without a `public_detail`."""
    problem = wire.Problem(
        type=kind.type,
        title=kind.title,
        status=kind.status,
        detail=(kind.public_detail or detail or kind.title)[:MAX_DETAIL_CHARS],
        instance=_instance(scope),
        request_id=current_request_id(),
        errors=list(field_errors) if field_errors is not None else None,
    )
    all_headers = dict(headers or {})
    if kind.retry_after_seconds is not None:
        all_headers.setdefault("Retry-After", str(kind.retry_after_seconds))
    if kind.challenge is not None:
        all_headers["WWW-Authenticate"] = kind.challenge
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        kind.status,
        headers=all_headers,
        media_type=MEDIA_TYPE,
    )


def _instance(scope: Mapping[str, Any]) -> str:
    """The requested path, percent-encoded as it came."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.split(b"?", 1)[0].decode("ascii", "replace")[:MAX_DETAIL_CHARS]


def register(app: FastAPI) -> None:
    """Answer every MsrError and every error of the framework with a problem document.

    Other exceptions are answered by `request_log.RequestLog`, the outermost layer that can.
    """
    app.add_exception_handler(errors.MsrError, _answer_own)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_framework)


async def _answer_own(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, errors.MsrError)
    kind = kind_of(error)
    if kind.status >= 500:
        # The message may name addresses and paths: it goes to the log only.
        log.warning("request_failed", problem=kind.slug, error=str(error))
    headers = {}
    if isinstance(error, errors.RateLimited):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    return problem_response(kind, request.scope, detail=str(error), headers=headers)


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(each["type"] == "json_invalid" for each in found):
        return problem_response(
            MALFORMED_BODY, request.scope, detail="the body cannot be read as JSON"
        )
    if not _is_json(request) and any(tuple(each["loc"]) == ("body",) for each in found):
        return problem_response(
            UNSUPPORTED_MEDIA_TYPE,
            request.scope,
            detail="send the body as JSON, with the header Content-Type: application/json",
        )
    fields = [
        # Without the input: it may be large, and the caller has it.
        wire.FieldError(field=_dotted(each["loc"]), message=str(each["msg"])[:MAX_DETAIL_CHARS])
        for each in found[:MAX_FIELD_ERRORS]
    ]
    summary = "; ".join(f"{field.field}: {field.message}" for field in fields[:3])
    return problem_response(INVALID_REQUEST, request.scope, detail=summary, field_errors=fields)


async def _answer_framework(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind = _OF_FRAMEWORK.get(error.status_code, UNEXPECTED)
    path = _instance(request.scope)
    headers = error.headers
    if kind is METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(_methods_served(request))}
    details = {
        NOT_FOUND: f"nothing is served at {path}; /openapi.json lists what is",
        METHOD_NOT_ALLOWED: f"{request.method} is not served at {path}",
        MALFORMED_BODY: "the body cannot be read as JSON",
    }
    return problem_response(kind, request.scope, detail=details.get(kind), headers=headers)


def _methods_served(request: Request) -> list[str]:
    # The framework names the methods of one route only, though several may share a path.
    template = getattr(request.scope.get("route"), "path_format", None)
    app: FastAPI = request.app
    return sorted(method.upper() for method in app.openapi()["paths"].get(template, {}))


def _is_json(request: Request) -> bool:
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


def _dotted(location: Sequence[int | str]) -> str:
    # "one" and "batch" tag the two forms of POST /interactions; callers do not know them.
    return ".".join(str(step) for step in location if step not in ("one", "batch"))


# --- for the OpenAPI document --------------------------------------------------------------------

_ANY_REQUEST = (UNEXPECTED,)
_ANY_BODY = (MALFORMED_BODY, BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST)


def documented(
    *listed: type[errors.MsrError] | Kind, body: bool = False
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: these problems, and those that any route may answer with."""
    kinds = [each if isinstance(each, Kind) else KINDS[each] for each in listed]
    kinds += [*(_ANY_BODY if body else ()), *_ANY_REQUEST]
    return {
        status: _documented_status([kind for kind in kinds if kind.status == status])
        for status in sorted({kind.status for kind in kinds})
    }


def add_documented(responses: dict[str, Any], *listed: type[errors.MsrError]) -> None:
    """Add problems to the responses of an operation in a finished OpenAPI document."""
    by_slug = {kind.slug: kind for kind in (*KINDS.values(), *_OF_FRAMEWORK.values(), UNEXPECTED)}
    added = documented(*listed)
    for status, entry in added.items():
        there = responses.get(str(status), {}).get("content", {}).get(MEDIA_TYPE, {})
        slugs = [*there.get("examples", {}), *entry["content"][MEDIA_TYPE]["examples"]]
        kinds = [by_slug[slug] for slug in dict.fromkeys(slugs)]
        responses[str(status)] = _documented_status(kinds)


def _documented_status(kinds: Sequence[Kind]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "description": "; ".join(dict.fromkeys(kind.title for kind in kinds)),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {kind.slug: {"value": _example(kind)} for kind in kinds},
            }
        },
    }
    headers = {}
    if any(kind.retry_after_seconds is not None for kind in kinds):
        headers["Retry-After"] = _header("Seconds after which to try again.", "integer")
    if any(kind.challenge is not None for kind in kinds):
        headers["WWW-Authenticate"] = _header("How to authenticate.", "string")
    if headers:
        entry["headers"] = headers
    return entry


def _header(description: str, json_type: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": json_type}}


def _example(kind: Kind) -> dict[str, Any]:
    return {
        "type": kind.type,
        "title": kind.title,
        "status": kind.status,
        "detail": kind.public_detail or kind.title,
        "instance": "/recommend",
        "request_id": "5f0c1f4e8a7b4c55",
    }


def add_problem_schema(document: dict[str, Any]) -> None:
    """Put the schema that the responses refer to into an OpenAPI document."""
    schema = wire.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(definitions)
    schemas["Problem"] = schema
