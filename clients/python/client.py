"""A typed client of the HTTP API.

    from clients.python import MsrClient
    with MsrClient("http://127.0.0.1:8000") as msr:
        print(msr.recommend("u42", k=5).items)

Where the server asks for an API key: MsrClient(url, api_key="msr_..."). No message and no repr
shows it.

Answers are the models of `core/wire.py`. An answer that is a problem document is raised as
ProblemError; whatever keeps an answer from coming is ServerUnreachable.
"""

import base64
import re
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from services.core import wire

Answer = TypeVar("Answer", bound=BaseModel)

# What may stand after `Bearer` in a header (RFC 6750).
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5


class ClientError(Exception):
    """Root of what a client raises."""


class ServerUnreachable(ClientError):
    """No answer came, or one that is not this API's."""


class StillFolding(ClientError):
    """The preference did not reach the version in time."""


class ProblemError(ClientError):
    """The server answered with a problem document, here as `problem`."""

    def __init__(self, problem: wire.Problem) -> None:
        """The message names the problem's title, detail and request id."""
        super().__init__(f"{problem.title}: {problem.detail} (request {problem.request_id})")
        self.problem = problem


class MsrClient:
    """Connections to one API server. Safe to share between threads; close it, or use `with`."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`timeout_seconds` bounds each wait on the network; `transport` replaces the network.

        ValueError for an `api_key` that cannot be one.
        """
        self._http = httpx.Client(
            base_url=base_url,
            headers=_authorization(api_key),
            timeout=timeout_seconds,
            transport=transport,
        )

    def __enter__(self) -> "MsrClient":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def recommend(
        self,
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
    ) -> wire.RecommendResponse:
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
        return self._send("POST", "/recommend", wire.RecommendResponse, body)

    def interact(self, *interactions: wire.InteractionIn) -> wire.InteractionsResponse:
        """Send what users did, up to 1,000 interactions (POST /interactions)."""
        body = wire.InteractionBatch(interactions=list(interactions))
        return self._send("POST", "/interactions", wire.InteractionsResponse, body)

    def preference(self, user_id: str) -> wire.PreferenceResponse:
        """The user's written preference (GET /users/{id}/preference)."""
        return self._send("GET", f"/users/{_quoted(user_id)}/preference", wire.PreferenceResponse)

    def wait_for_version(
        self,
        user_id: str,
        version: int,
        *,
        timeout_seconds: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> wire.PreferenceResponse:
        """The preference once it covers `version` interactions, as `interact` returned it.

        Raises StillFolding if that takes longer than `timeout_seconds`.
        """
        give_up = time.monotonic() + timeout_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            found = self.preference(user_id)
            if found.preference_version >= version:
                return found
            if time.monotonic() + pause > give_up:
                raise StillFolding(
                    f"the preference of user {user_id!r} covers {found.preference_version} of "
                    f"{version} interactions after {timeout_seconds} s; is a worker running?"
                )
            sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def forget(self, user_id: str) -> None:
        """Remove every trace of the user (DELETE /users/{id})."""
        self._exchange("DELETE", f"/users/{_quoted(user_id)}")

    def put_item(
        self,
        item_id: str,
        title: str,
        *,
        image: bytes | None = None,
        image_url: str | None = None,
    ) -> wire.ItemView:
        """Add or replace an item; `image` is the bytes of a picture file (PUT /items)."""
        encoded = base64.b64encode(image).decode() if image is not None else None
        body = wire.ItemIn(item_id=item_id, title=title, image=encoded, image_url=image_url)
        return self._send("PUT", "/items", wire.ItemView, body)

    def item(self, item_id: str) -> wire.ItemView:
        """An item as the model sees it (GET /items/{id})."""
        return self._send("GET", f"/items/{_quoted(item_id)}", wire.ItemView)

    def delete_item(self, item_id: str) -> None:
        """Take an item out of the catalogue (DELETE /items/{id})."""
        self._exchange("DELETE", f"/items/{_quoted(item_id)}")

    def adapters(self) -> wire.AdaptersResponse:
        """The adapters that there are, and which of them serve (GET /adapters)."""
        return self._send("GET", "/adapters", wire.AdaptersResponse)

    def activate_adapter(self, name: str) -> wire.AdaptersResponse:
        """Let this adapter score from the next request on (POST /adapters/{name}/activate)."""
        return self._send("POST", f"/adapters/{_quoted(name)}/activate", wire.AdaptersResponse)

    def roll_back_adapter(self) -> wire.AdaptersResponse:
        """Let the previous adapter score again (POST /adapters/rollback)."""
        return self._send("POST", "/adapters/rollback", wire.AdaptersResponse)

    def set_shadow(self, adapter: str, *, share: float) -> wire.AdaptersResponse:
        """Let an adapter score a share of the requests along (PUT /adapters/shadow)."""
        body = wire.ShadowIn(adapter=adapter, share=share)
        return self._send("PUT", "/adapters/shadow", wire.AdaptersResponse, body)

    def clear_shadow(self) -> wire.AdaptersResponse:
        """Let no adapter score along (DELETE /adapters/shadow)."""
        return self._send("DELETE", "/adapters/shadow", wire.AdaptersResponse)

    def set_experiment(self, name: str, arms: Sequence[wire.ArmIn]) -> wire.AdaptersResponse:
        """Divide the users among adapters (PUT /adapters/experiment)."""
        body = wire.ExperimentIn(name=name, arms=list(arms))
        return self._send("PUT", "/adapters/experiment", wire.AdaptersResponse, body)

    def end_experiment(self) -> wire.AdaptersResponse:
        """Let the active adapter score for everybody again (DELETE /adapters/experiment)."""
        return self._send("DELETE", "/adapters/experiment", wire.AdaptersResponse)

    def version(self) -> wire.VersionResponse:
        """What runs on the server (GET /version)."""
        return self._send("GET", "/version", wire.VersionResponse)

    def _send(
        self, method: str, path: str, answer: type[Answer], body: BaseModel | None = None
    ) -> Answer:
        response = self._exchange(method, path, body)
        return _read(response, answer)

    def _exchange(self, method: str, path: str, body: BaseModel | None = None) -> httpx.Response:
        content = body.model_dump_json(exclude_none=True) if body is not None else None
        headers = {"Content-Type": "application/json"} if body is not None else None
        try:
            response = self._http.request(method, path, content=content, headers=headers)
        except httpx.TransportError as error:
            raise ServerUnreachable(
                f"{method} {path}: no answer from {self._http.base_url} "
                f"({type(error).__name__}: {error})"
            ) from error
        if response.is_success:
            return response
        raise ProblemError(_read(response, wire.Problem))


def _authorization(api_key: str | None) -> dict[str, str]:
    if api_key is None:
        return {}
    # Checked here, since the network's own error would quote the header: a line break at the end of
    # a key that was read from a file is enough.
    if not _TOKEN.fullmatch(api_key):
        raise ValueError(
            f"api_key has {len(api_key)} characters and cannot be an API key; is there a space or "
            "a line break in it?"
        )
    return {"Authorization": f"Bearer {api_key}"}


def _read(response: httpx.Response, answer: type[Answer]) -> Answer:
    try:
        return answer.model_validate_json(response.content)
    except ValidationError as error:
        raise ServerUnreachable(
            f"{response.url} answered {response.status_code} with what is not a {answer.__name__}; "
            "is this the API's address, and of this version?"
        ) from error


def _quoted(any_id: str) -> str:
    return quote(any_id, safe="")
