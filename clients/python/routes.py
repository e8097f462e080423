"""The routes of the HTTP API, each written once: the request and how to read its response.

A function here sends nothing. It returns the request as a `Call`, which either client sends.
"""

import base64
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from httpx_retries import Retry
from pydantic import BaseModel, ValidationError

from clients.python.errors import ProblemError, ServerUnreachable
from services.core import wire
from services.core.ids import derive_event_id
from services.core.wire import console

Answer = TypeVar("Answer")
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """A request, and how to read the body of a success.

    A `repeatable` request has the same effect if it is sent once or several times.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], Answer]
    repeatable: bool
    content: str | None = None

    @property
    def request(self) -> dict[str, Any]:
        """The arguments by which httpx sends it."""
        headers = {"Content-Type": "application/json"} if self.content is not None else {}
        return {
            "method": self.method,
            "url": self.path,
            "content": self.content,
            "headers": headers,
        }

    def answer(self, response: httpx.Response) -> Answer:
        """The model of a success; ProblemError, or ServerUnreachable if another server answered."""
        if not response.is_success:
            raise problem_of(response)
        return self.read(response)


def recommend(
    user_id: str,
    *,
    candidates: Sequence[str] | None = None,
    k: int = wire.DEFAULT_K,
    mode: wire.Mode = "cascade",
    exclude_seen: bool = True,
    num_scored: int | None = None,
    timeout_seconds: float | None = None,
    at_least_version: int | None = None,
    priority: wire.Priority = "interactive",
) -> Call[wire.RecommendResponse]:
    """The items the user would take next, best first (POST /recommend).

    `at_least_version`, as `interact` returned it: wait until the preference covers that version.
    """
    body = wire.RecommendRequest(
        user_id=user_id,
        candidates=list(candidates) if candidates is not None else None,
        k=k,
        mode=mode,
        exclude_seen=exclude_seen,
        num_scored=num_scored,
        timeout_seconds=timeout_seconds,
        at_least_version=at_least_version,
        priority=priority,
    )
    # A ranking changes no state, so a second one gives the same.
    return _call("POST", "/recommend", wire.RecommendResponse, body, repeatable=True)


def interact(*interactions: wire.InteractionIn) -> Call[wire.InteractionsResponse]:
    """Send what users did, up to 1,000 interactions (POST /interactions).

    An interaction without an event id gets one here, before the first try, so that it counts once
    however often the client sends it. If the first response was lost, the next one counts it among
    `duplicates`. Two calls with the same arguments make two interactions, unless these have a
    timestamp: the id then follows from user, item and timestamp.
    """
    body = wire.InteractionBatch(interactions=[_with_event_id(each) for each in interactions])
    return _call("POST", "/interactions", wire.InteractionsResponse, body, repeatable=True)


def preference(user_id: str) -> Call[wire.PreferenceResponse]:
    """The user's written preference (GET /users/{id}/preference)."""
    return _call("GET", f"/users/{_quoted(user_id)}/preference", wire.PreferenceResponse)


def personas() -> Call[console.PersonasResponse]:
    """Example users, as the server's data folder names them (GET /personas)."""
    return _call("GET", "/personas", console.PersonasResponse)


def preference_events(user_id: str) -> Call[httpx.Response]:
    """The stream of the user's preference (GET /users/{id}/preference/events)."""
    path = f"/users/{_quoted(user_id)}/preference/events"
    return Call("GET", path, _as_event_stream, repeatable=True)


def forget(user_id: str) -> Call[None]:
    """Remove every trace of the user (DELETE /users/{id})."""
    return _delete(f"/users/{_quoted(user_id)}")


def put_item(
    item_id: str,
    title: str,
    *,
    image: bytes | None = None,
    image_url: str | None = None,
) -> Call[wire.ItemView]:
    """Add or replace an item; `image` has the bytes of an image file (PUT /items)."""
    encoded = base64.b64encode(image).decode() if image is not None else None
    body = wire.ItemIn(item_id=item_id, title=title, image=encoded, image_url=image_url)
    return _call("PUT", "/items", wire.ItemView, body)


def item(item_id: str) -> Call[wire.ItemView]:
    """An item as the model sees it (GET /items/{id})."""
    return _call("GET", f"/items/{_quoted(item_id)}", wire.ItemView)


def delete_item(item_id: str) -> Call[None]:
    """Remove an item from the catalogue (DELETE /items/{id})."""
    return _delete(f"/items/{_quoted(item_id)}")


def adapters() -> Call[wire.AdaptersResponse]:
    """All adapters, and which of them serve (GET /adapters)."""
    return _call("GET", "/adapters", wire.AdaptersResponse)


def activate_adapter(name: str) -> Call[wire.AdaptersResponse]:
    """Score with this adapter from the next request on (POST /adapters/{name}/activate)."""
    return _call("POST", f"/adapters/{_quoted(name)}/activate", wire.AdaptersResponse)


def roll_back_adapter() -> Call[wire.AdaptersResponse]:
    """Score with the previous adapter again (POST /adapters/rollback)."""
    return _call("POST", "/adapters/rollback", wire.AdaptersResponse)


def set_shadow(adapter: str, *, share: float) -> Call[wire.AdaptersResponse]:
    """Score a share of the requests with a second adapter too (PUT /adapters/shadow)."""
    body = wire.ShadowIn(adapter=adapter, share=share)
    return _call("PUT", "/adapters/shadow", wire.AdaptersResponse, body)


def clear_shadow() -> Call[wire.AdaptersResponse]:
    """Stop the second adapter (DELETE /adapters/shadow)."""
    return _call("DELETE", "/adapters/shadow", wire.AdaptersResponse)


def set_experiment(name: str, arms: Sequence[wire.ArmIn]) -> Call[wire.AdaptersResponse]:
    """Split the users between adapters (PUT /adapters/experiment)."""
    body = wire.ExperimentIn(name=name, arms=list(arms))
    return _call("PUT", "/adapters/experiment", wire.AdaptersResponse, body)


def end_experiment() -> Call[wire.AdaptersResponse]:
    """Score all users with the active adapter again (DELETE /adapters/experiment)."""
    return _call("DELETE", "/adapters/experiment", wire.AdaptersResponse)


def version() -> Call[wire.VersionResponse]:
    """The versions of the server's code and models (GET /version)."""
    return _call("GET", "/version", wire.VersionResponse)


def read_model(
    response: httpx.Response, model: type[Model], content: bytes | str | None = None
) -> Model:
    """The body, or this `content`, as a model; ServerUnreachable if it does not fit."""
    try:
        return model.model_validate_json(response.content if content is None else content)
    except ValidationError as error:
        raise not_this_api(response, model.__name__) from error


def not_this_api(response: httpx.Response, expected: str) -> ServerUnreachable:
    """The error for a response that this API does not give."""
    return ServerUnreachable(
        f"{response.url} answered {response.status_code} with a body that is not a {expected}; "
        "is this the address of the API, and of the same version?"
    )


def problem_of(response: httpx.Response) -> ProblemError:
    """The error of a problem document; ServerUnreachable is raised if the response has none."""
    return ProblemError.of(
        read_model(response, wire.Problem), retry_after_seconds=retry_after_seconds(response)
    )


def retry_after_seconds(response: httpx.Response) -> float | None:
    """The header Retry-After, a number or a date, in seconds; None without a valid one."""
    try:
        return Retry().parse_retry_after(response.headers.get("Retry-After", ""))
    except ValueError:
        return None


def _call(
    method: str,
    path: str,
    answer: type[Model],
    body: BaseModel | None = None,
    *,
    repeatable: bool | None = None,
) -> Call[Model]:
    return Call(
        method,
        path,
        lambda response: read_model(response, answer),
        method != "POST" if repeatable is None else repeatable,
        body.model_dump_json(exclude_none=True) if body is not None else None,
    )


def _delete(path: str) -> Call[None]:
    return Call("DELETE", path, lambda response: None, repeatable=True)


def _as_event_stream(response: httpx.Response) -> httpx.Response:
    if response.headers.get("Content-Type", "").split(";")[0].strip() != "text/event-stream":
        raise not_this_api(response, "stream of events")
    return response


def _with_event_id(interaction: wire.InteractionIn) -> wire.InteractionIn:
    if interaction.event_id is not None:
        return interaction
    at = interaction.timestamp_ms
    event_id = (
        secrets.token_hex(12)
        if at is None
        else derive_event_id(interaction.user_id, interaction.item_id, at)
    )
    return interaction.model_copy(update={"event_id": event_id})


def _quoted(any_id: str) -> str:
    return quote(any_id, safe="")
