"""Typed clients of the HTTP API, one that blocks and one for asyncio.

    from msr_client import MsrClient
    with MsrClient("http://127.0.0.1:8000") as msr:
        print(msr.recommend("user-00000", k=5).items)

    async with AsyncMsrClient("http://127.0.0.1:8000") as msr:
        async for update in msr.watch_preference("user-00000"):
            print(update.preference)

If the server requires an API key: MsrClient(url, api_key="msr_..."). No message and no repr shows
the key.

Methods return the models of `wire`. A problem document is raised as ProblemError or as the class
that `errors.py` has for its type; every other failure is ServerUnreachable. A request that fails on
its way, or that the server puts off, is sent again where it cannot count twice (`retries.py`):
all requests but those that activate or roll back an adapter.
"""

import asyncio
import os
import re
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from contextlib import aclosing, contextmanager
from functools import wraps
from inspect import Parameter, signature
from typing import Any, Generic, ParamSpec, Protocol, TypeAlias, TypeVar, cast, get_args, overload

import httpx
from httpx_retries import aretry_request, retry_request
from httpx_sse import aconnect_sse, connect_sse

from clients.python import routes
from clients.python.errors import ServerUnreachable, StillUpdating
from clients.python.retries import Retries, Tries
from clients.python.routes import Answer, Call
from clients.python.watching import Watch, stream_ended
from services.core import wire

P = ParamSpec("P")
Answer_co = TypeVar("Answer_co", covariant=True)

Transport = TypeVar("Transport", httpx.BaseTransport, httpx.AsyncBaseTransport)

Proxy: TypeAlias = str | httpx.URL | httpx.Proxy
# A file with certificate and key, or the two files, or these and the key's password.
Certificate: TypeAlias = str | tuple[str, str] | tuple[str, str, str]

# The characters allowed after `Bearer` in a header (RFC 6750).
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
# The server closes a connection after 5 idle seconds, so one that old is not used again.
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=2.0)
_ONCE = Retries(max_tries=1)
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5


class Method(Protocol[P, Answer_co]):
    """The type of a method: blocking on one client, a coroutine on the other."""

    @overload
    def __get__(self, client: "MsrClient", owner: type) -> Callable[P, Answer_co]: ...

    @overload
    def __get__(
        self, client: "AsyncMsrClient", owner: type
    ) -> Callable[P, Coroutine[Any, Any, Answer_co]]: ...


def method(route: Callable[P, Call[Answer]]) -> Method[P, Answer]:
    """The method of both clients that sends the call of a route."""

    @wraps(route)
    def send(self: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
        return self._ask(route(*args, **kwargs))

    # What `help` shows: the arguments of the route after `self`, and the model that it returns.
    shown = signature(route)
    this = Parameter("self", Parameter.POSITIONAL_ONLY)
    [answer] = get_args(shown.return_annotation)
    send.__signature__ = shown.replace(  # type: ignore[attr-defined]
        parameters=[this, *shown.parameters.values()], return_annotation=answer
    )
    return cast(Method[P, Answer], send)


class ApiMethods:
    """The routes as methods. Arguments that the API does not allow raise ValueError."""

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


def _authorization(api_key: str | None) -> dict[str, str]:
    if api_key is None:
        return {}
    # Checked here because the error of the network would quote the header. A line break at the end
    # of a key that was read from a file is enough to cause it.
    if not _TOKEN.fullmatch(api_key):
        raise ValueError(
            f"api_key has {len(api_key)} characters and cannot be an API key; is there a space or "
            "a line break in it?"
        )
    return {"Authorization": f"Bearer {api_key}"}


def _tls(verify: bool | str | ssl.SSLContext, cert: Certificate | None) -> bool | ssl.SSLContext:
    """What all versions of httpx accept as `verify`: newer ones take neither paths nor `cert`."""
    if isinstance(verify, str):
        kind = "capath" if os.path.isdir(verify) else "cafile"
        verify = ssl.create_default_context(**{kind: verify})  # type: ignore[arg-type]
    if cert is not None:
        verify = httpx.create_ssl_context(verify=verify)
        verify.load_cert_chain(*([cert] if isinstance(cert, str) else cert))
    return verify


class _Client(ApiMethods, Generic[Transport]):
    """What both clients share: how they connect, and what the failures of a call are called."""

    _connect: Callable[..., Any]

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 30.0,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        limits: httpx.Limits = LIMITS,
        proxy: Proxy | None = None,
        verify: bool | str | ssl.SSLContext = True,
        cert: Certificate | None = None,
        transport: Transport | None = None,
    ) -> None:
        """`timeout_seconds` bounds each wait on the network, and `limits` the connections.

        `proxy` replaces a proxy of the environment. `verify` is a file or a folder of certificate
        authorities, or False to accept any server; `cert` identifies the client. `transport`
        replaces the network and these four. ValueError for an `api_key` that cannot be one.
        """
        self._retries = retries
        self._http = self._connect(
            base_url=base_url,
            headers=_authorization(api_key),
            timeout=timeout_seconds,
            limits=limits,
            proxy=proxy,
            verify=_tls(verify, cert),
            transport=transport,
        )

    @contextmanager
    def _trying(self, call: Call[Any]) -> Iterator[Tries]:
        """The tries of a call. An error of the network becomes ServerUnreachable."""
        tries = Tries(self._retries if call.repeatable else _ONCE)
        try:
            yield tries
        except httpx.TransportError as error:
            tried = f", after {tries.num_made} tries" if tries.num_made > 1 else ""
            raise ServerUnreachable(
                f"{call.method} {call.path}: no answer from {self._http.base_url} "
                f"({type(error).__name__}: {error}{tried})"
            ) from error


class MsrClient(_Client[httpx.BaseTransport]):
    """Connections to one API server. Safe to share between threads; close it, or use `with`."""

    _http: httpx.Client
    _connect = httpx.Client

    def __enter__(self) -> "MsrClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def wait_for_version(
        self, user_id: str, version: int, *, timeout_seconds: float = 30.0
    ) -> wire.PreferenceResponse:
        """The preference once it covers `version` interactions, as `interact` returned it.

        Raises StillUpdating if that takes longer than `timeout_seconds`.
        """
        wait = _VersionWait(user_id, version, timeout_seconds)
        while (found := self.preference(user_id)).preference_version < version:
            time.sleep(wait.pause_seconds(found))
        return found

    def watch_preference(
        self, user_id: str, *, after_version: int | None = None
    ) -> Generator[wire.PreferenceResponse, None, None]:
        """The preference now, and again whenever it or the history grows, until the user is
        forgotten (GET /users/{id}/preference/events).

        With `after_version`, the version that you have, that preference is not sent first.
        A lost connection is made again; ServerUnreachable if that fails for too long.
        """
        call = routes.preference_events(user_id)
        with self._trying(call) as tries:
            watch = Watch(call, after_version, tries)
            while not watch.is_over:
                outcome: httpx.Response | httpx.TransportError = stream_ended()
                try:
                    with connect_sse(self._http, **watch.request(self._http.timeout)) as source:
                        if watch.opens(source.response):
                            for event in source.iter_sse():
                                yield from watch.updates(event)
                                if watch.is_over:
                                    return
                        else:
                            outcome = source.response
                            outcome.read()
                except httpx.TransportError as error:
                    outcome = error
                time.sleep(watch.pause_seconds(outcome))

    def _ask(self, call: Call[Answer]) -> Answer:
        with self._trying(call) as tries:
            response = retry_request(self._http, retry=tries, **call.request)
        return call.answer(response)


class AsyncMsrClient(_Client[httpx.AsyncBaseTransport]):
    """The same for asyncio: its methods are awaited. Close it by `aclose`, or use `async with`."""

    _http: httpx.AsyncClient
    _connect = httpx.AsyncClient

    async def __aenter__(self) -> "AsyncMsrClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def wait_for_version(
        self, user_id: str, version: int, *, timeout_seconds: float = 30.0
    ) -> wire.PreferenceResponse:
        """As MsrClient.wait_for_version."""
        wait = _VersionWait(user_id, version, timeout_seconds)
        while (found := await self.preference(user_id)).preference_version < version:  # noqa: ASYNC110
            await asyncio.sleep(wait.pause_seconds(found))
        return found

    async def watch_preference(
        self, user_id: str, *, after_version: int | None = None
    ) -> AsyncGenerator[wire.PreferenceResponse, None]:
        """As MsrClient.watch_preference. To leave the loop before its end, close the generator
        (`contextlib.aclosing`); that closes the connection.
        """
        call = routes.preference_events(user_id)
        with self._trying(call) as tries:
            watch = Watch(call, after_version, tries)
            while not watch.is_over:
                outcome: httpx.Response | httpx.TransportError = stream_ended()
                try:
                    request = watch.request(self._http.timeout)
                    async with aconnect_sse(self._http, **request) as source:
                        if watch.opens(source.response):
                            async with aclosing(source.aiter_sse()) as events:
                                async for event in events:
                                    for update in watch.updates(event):
                                        yield update
                                    if watch.is_over:
                                        return
                        else:
                            outcome = source.response
                            await outcome.aread()
                except httpx.TransportError as error:
                    outcome = error
                await asyncio.sleep(watch.pause_seconds(outcome))

    async def _ask(self, call: Call[Answer]) -> Answer:
        with self._trying(call) as tries:
            response = await aretry_request(self._http, retry=tries, **call.request)
        return call.answer(response)


class _VersionWait:
    """The growing pauses between looks at a preference, until its time is over."""

    def __init__(self, user_id: str, version: int, timeout_seconds: float) -> None:
        self._wanted = f"{version} interactions after {timeout_seconds} s"
        self._user_id = user_id
        self._end = time.monotonic() + timeout_seconds
        self._pause = _FIRST_PAUSE_SECONDS

    def pause_seconds(self, found: wire.PreferenceResponse) -> float:
        """The next pause; StillUpdating if it would end too late."""
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        if time.monotonic() + pause > self._end:
            raise StillUpdating(
                f"the preference of user {self._user_id!r} covers {found.preference_version} of "
                f"{self._wanted}; is a worker running?"
            )
        return pause
