"""The routes of the HTTP API, each written once: what is asked for and how the answer reads.

A function here sends nothing. It gives the request as a `Call`, which either client sends.
"""

import base64
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from clients.python.errors import ServerUnreachable
from services.core import wire
from services.core.wire import console

Answer = TypeVar("Answer")
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """A request, and how its answer is read.

    A `repeatable` one has the same effect sent once or often, so that it may be sent again when
    nobody knows what became of it.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], Answer]
    repeatable: bool
    content: str | None = None


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

    `at_least_version`, as `interact` returned it: wait until the preference knows of that.
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
    # It changes nothing that a second one would find otherwise.
    return _call("POST", "/recommend", wire.RecommendResponse, body, repeatable=True)


def interact(*interactions: wire.InteractionIn) -> Call[wire.InteractionsResponse]:
    """Send what users did, up to 1,000 interactions (POST /interactions).

    What has neither an event id nor a timestamp gets an event id here, so that it counts once
    however often the client has to send it; if an answer was lost on the way, the one that comes
    counts it among `duplicates`. Calling this twice makes two interactions of it, as ever.
    """
    body = wire.InteractionBatch(interactions=[_recognizable(each) for each in interactions])
    return _call("POST", "/interactions", wire.InteractionsResponse, body, repeatable=True)


def preference(user_id: str) -> Call[wire.PreferenceResponse]:
    """The user's written preference (GET /users/{id}/preference)."""
    return _call("GET", f"/users/{_quoted(user_id)}/preference", wire.PreferenceResponse)


def personas() -> Call[console.PersonasResponse]:
    """Users who are worth a look, as the server's data folder names them (GET /personas)."""
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
    """Add or replace an item; `image` is the bytes of a picture file (PUT /items)."""
    encoded = base64.b64encode(image).decode() if image is not None else None
    body = wire.ItemIn(item_id=item_id, title=title, image=encoded, image_url=image_url)
    return _call("PUT", "/items", wire.ItemView, body)


def item(item_id: str) -> Call[wire.ItemView]:
    """An item as the model sees it (GET /items/{id})."""
    return _call("GET", f"/items/{_quoted(item_id)}", wire.ItemView)


def delete_item(item_id: str) -> Call[None]:
    """Take an item out of the catalogue (DELETE /items/{id})."""
    return _delete(f"/items/{_quoted(item_id)}")


def adapters() -> Call[wire.AdaptersResponse]:
    """The adapters that there are, and which of them serve (GET /adapters)."""
    return _call("GET", "/adapters", wire.AdaptersResponse)


def activate_adapter(name: str) -> Call[wire.AdaptersResponse]:
    """Let this adapter score from the next request on (POST /adapters/{name}/activate)."""
    return _call("POST", f"/adapters/{_quoted(name)}/activate", wire.AdaptersResponse)


def roll_back_adapter() -> Call[wire.AdaptersResponse]:
    """Let the previous adapter score again (POST /adapters/rollback)."""
    return _call("POST", "/adapters/rollback", wire.AdaptersResponse)


def set_shadow(adapter: str, *, share: float) -> Call[wire.AdaptersResponse]:
    """Let an adapter score a share of the requests along (PUT /adapters/shadow)."""
    body = wire.ShadowIn(adapter=adapter, share=share)
    return _call("PUT", "/adapters/shadow", wire.AdaptersResponse, body)


def clear_shadow() -> Call[wire.AdaptersResponse]:
    """Let no adapter score along (DELETE /adapters/shadow)."""
    return _call("DELETE", "/adapters/shadow", wire.AdaptersResponse)


def set_experiment(name: str, arms: Sequence[wire.ArmIn]) -> Call[wire.AdaptersResponse]:
    """Divide the users among adapters (PUT /adapters/experiment)."""
    body = wire.ExperimentIn(name=name, arms=list(arms))
    return _call("PUT", "/adapters/experiment", wire.AdaptersResponse, body)


def end_experiment() -> Call[wire.AdaptersResponse]:
    """Let the active adapter score for everybody again (DELETE /adapters/experiment)."""
    return _call("DELETE", "/adapters/experiment", wire.AdaptersResponse)


def version() -> Call[wire.VersionResponse]:
    """What runs on the server (GET /version)."""
    return _call("GET", "/version", wire.VersionResponse)


def read_model(
    response: httpx.Response, model: type[Model], content: bytes | str | None = None
) -> Model:
    """The body, or this part of it, as a model; ServerUnreachable if it is none."""
    try:
        return model.model_validate_json(response.content if content is None else content)
    except ValidationError as error:
        raise not_this_api(response, model.__name__) from error


def not_this_api(response: httpx.Response, expected: str) -> ServerUnreachable:
    """What to raise for an answer that this API does not give."""
    return ServerUnreachable(
        f"{response.url} answered {response.status_code} with what is not a {expected}; "
        "is this the API's address, and of this version?"
    )


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


def _recognizable(interaction: wire.InteractionIn) -> wire.InteractionIn:
    # With a timestamp the server recognizes a repetition by itself. An id of ours would make two
    # equal calls two interactions, which are one.
    if interaction.event_id is not None or interaction.timestamp_ms is not None:
        return interaction
    return interaction.model_copy(update={"event_id": secrets.token_hex(12)})


def _quoted(any_id: str) -> str:
    return quote(any_id, safe="")
