"""Typed clients of the HTTP API, one that blocks and one for asyncio.

    from clients.python import MsrClient
    with MsrClient("http://127.0.0.1:8000") as msr:
        print(msr.recommend("user-00000", k=5).items)

    async with AsyncMsrClient("http://127.0.0.1:8000") as msr:
        async for update in msr.watch_preference("user-00000"):
            print(update.preference)

Where the server asks for an API key: MsrClient(url, api_key="msr_..."). No message and no repr
shows it.

Answers are the models of `core/wire`. An answer that is a problem document is raised as
ProblemError, or the class that `errors.py` has for its type; whatever keeps an answer from coming
is ServerUnreachable. What failed on its way, or was put off by the server, is sent again where that
cannot count twice (`retries.py`): everything but activating and rolling back adapters.
"""

import re
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import aclosing, closing
from functools import wraps
from inspect import Parameter, signature
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar, cast, get_args, overload

import httpx

from clients.python import routes
from clients.python.call_flow import Conversations, Outcome
from clients.python.drivers import AsyncLine, Line
from clients.python.retries import Retries
from clients.python.routes import Answer, Call
from services.core import wire

P = ParamSpec("P")
Answer_co = TypeVar("Answer_co", covariant=True)

# What may stand after `Bearer` in a header (RFC 6750).
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
# The server hangs up after 5 idle seconds: a connection that old is not used again.
_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=2.0)


class Method(Protocol[P, Answer_co]):
    """A method by what it is on an instance of either client."""

    @overload
    def __get__(self, client: "MsrClient", owner: type) -> Callable[P, Answer_co]: ...

    @overload
    def __get__(
        self, client: "AsyncMsrClient", owner: type
    ) -> Callable[P, Coroutine[Any, Any, Answer_co]]: ...


def method(route: Callable[P, Call[Answer]]) -> Method[P, Answer]:
    """The method that sends what a route asks for, as the client sends."""

    @wraps(route)
    def send(self: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
        return self._ask(route(*args, **kwargs))

    # What `help` shows: the route's arguments after `self`, and the answer that its call reads.
    shown = signature(route)
    this = Parameter("self", Parameter.POSITIONAL_ONLY)
    [answer] = get_args(shown.return_annotation)
    send.__signature__ = shown.replace(  # type: ignore[attr-defined]
        parameters=[this, *shown.parameters.values()], return_annotation=answer
    )
    return cast(Method[P, Answer], send)


class ApiMethods:
    """The routes as methods. Arguments that no server would take raise ValueError."""

    recommend = method(routes.recommend)
    interact = method(routes.interact)
    preference = method(routes.preference)
    personas = method(routes.personas)
    forget = method(routes.forget)
    put_item = method(routes.put_item)
    item = method(routes.item)
    delete_item = method(routes.delete_item)
    adapters = method(routes.adapters)
    activate_adapter = method(routes.activate_adapter)
    roll_back_adapter = method(routes.roll_back_adapter)
    set_shadow = method(routes.set_shadow)
    clear_shadow = method(routes.clear_shadow)
    set_experiment = method(routes.set_experiment)
    end_experiment = method(routes.end_experiment)
    version = method(routes.version)


def http_options(base_url: str, api_key: str | None, timeout_seconds: float) -> dict[str, Any]:
    """What either client of httpx is made with. ValueError for what cannot be an API key."""
    return {
        "base_url": base_url,
        "headers": _authorization(api_key),
        "timeout": timeout_seconds,
        "limits": _LIMITS,
    }


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


class MsrClient(ApiMethods):
    """Connections to one API server. Safe to share between threads; close it, or use `with`."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 30.0,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`timeout_seconds` bounds each wait on the network; `transport` replaces the network.

        ValueError for an `api_key` that cannot be one.
        """
        self._http = httpx.Client(
            **http_options(base_url, api_key, timeout_seconds), transport=transport
        )
        self._conversations = Conversations(str(self._http.base_url), retries)

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

    def wait_for_version(
        self,
        user_id: str,
        version: int,
        *,
        timeout_seconds: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> wire.PreferenceResponse:
        """The preference once it covers `version` interactions, as `interact` returned it.

        Raises StillUpdating if that takes longer than `timeout_seconds`.
        """
        steps = self._conversations.wait_for_version(user_id, version, timeout_seconds)
        return Line(self._http, sleep).follow(steps)

    def watch_preference(
        self, user_id: str, *, after_version: int | None = None
    ) -> Generator[wire.PreferenceResponse, None, None]:
        """The preference now, and again whenever it or the history grows; ends when the user is
        forgotten (GET /users/{id}/preference/events).

        With `after_version` the preference of that version, which you have, is not given first.
        A connection that is cut is made again; ServerUnreachable once that fails for too long.
        """
        steps = self._conversations.watch_preference(user_id, after_version)
        outcome: Outcome = None
        with closing(Line(self._http)) as line, closing(steps):
            while True:
                try:
                    step = steps.send(outcome)
                except StopIteration:
                    return
                if isinstance(step, wire.PreferenceResponse):
                    yield step
                    outcome = None
                else:
                    outcome = line.do(step)

    def _ask(self, call: Call[Answer]) -> Answer:
        return Line(self._http).follow(self._conversations.ask(call))


class AsyncMsrClient(ApiMethods):
    """The same for asyncio: its methods are awaited. Close it by `aclose`, or use `async with`."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 30.0,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """As MsrClient."""
        self._http = httpx.AsyncClient(
            **http_options(base_url, api_key, timeout_seconds), transport=transport
        )
        self._conversations = Conversations(str(self._http.base_url), retries)

    async def __aenter__(self) -> "AsyncMsrClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def wait_for_version(
        self, user_id: str, version: int, *, timeout_seconds: float = 30.0
    ) -> wire.PreferenceResponse:
        """As MsrClient.wait_for_version."""
        steps = self._conversations.wait_for_version(user_id, version, timeout_seconds)
        return await AsyncLine(self._http).follow(steps)

    async def watch_preference(
        self, user_id: str, *, after_version: int | None = None
    ) -> AsyncGenerator[wire.PreferenceResponse, None]:
        """As MsrClient.watch_preference. Whoever leaves the loop before its end closes the
        generator, by `contextlib.aclosing` say, and with it the connection.
        """
        steps = self._conversations.watch_preference(user_id, after_version)
        outcome: Outcome = None
        async with aclosing(AsyncLine(self._http)) as line:
            with closing(steps):
                while True:
                    try:
                        step = steps.send(outcome)
                    except StopIteration:
                        return
                    if isinstance(step, wire.PreferenceResponse):
                        yield step
                        outcome = None
                    else:
                        outcome = await line.do(step)

    async def _ask(self, call: Call[Answer]) -> Answer:
        return await AsyncLine(self._http).follow(self._conversations.ask(call))
