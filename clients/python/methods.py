"""The methods that both clients have, one for each route: listed once, typed for either.

`MsrClient.recommend(...)` gives what `routes.recommend` says the answer is, and
`AsyncMsrClient.recommend(...)` an awaitable of it.
"""

import re
from collections.abc import Callable, Coroutine
from functools import wraps
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, get_args, overload

import httpx

from clients.python import routes
from clients.python.routes import Answer, Call

if TYPE_CHECKING:
    from clients.python.client import AsyncMsrClient, MsrClient

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
