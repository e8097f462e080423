"""The only module that imports redis-py: connections, scripts, and the translation of its errors.

Commands are written as in the Redis manual and replies are raw (RESP2, bytes), so that callers do
not depend on the version of the client library.
"""

import asyncio
import functools
import hashlib
import re
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.core.errors import InputError, StateError, StateUnavailable
from services.state.redis_health import RedisHealth

SCRIPTS = Path(__file__).parent / "scripts"
MAX_CONNECTIONS = 64
_PASSWORD_IN_QUERY = re.compile(r"\b(password)=[^&#]*", re.IGNORECASE)

# The reply to XREADGROUP on a deleted stream: NOGROUP; in Redis 7, if it was waiting, the sentence.
_NO_GROUP = re.compile("NOGROUP|the stream key no longer exists")
# redis-py has no classes for these replies.
_NOT_NOW = ("MISCONF", "NOREPLICAS", "UNBLOCKED")
_NO_CONNECTION = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)  # LOADING as well
_UNAVAILABLE = (
    *_NO_CONNECTION,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,  # MASTERDOWN as well
    exceptions.TryAgainError,
)

# uvloop raises a RuntimeError where asyncio raises a ConnectionError, and redis-py lets it pass.
_CLOSED_IN_UVLOOP = "the handler is closed"

T = TypeVar("T")
Argument = str | bytes | int | float
Command = tuple[Argument, ...]
# The keys and the arguments of one call of a script.
Call = tuple[Sequence[str], Sequence[Argument]]


class GroupMissing(StateError):
    """The consumer groups are missing: Redis was emptied while a worker ran."""


@functools.cache
def read_script(name: str) -> tuple[str, str]:
    """The source of `scripts/NAME.lua`, and the digest by which Redis runs it."""
    source = (SCRIPTS / f"{name}.lua").read_text(encoding="utf-8")
    return source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class Connection:
    """A pool of connections to one Redis. Every error is a StateError."""

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        """Use `open`."""
        self.timeout_seconds = timeout_seconds
        self.health = RedisHealth(self._ping)
        self._redis = _client(url, MAX_CONNECTIONS, timeout_seconds)
        self._for_pings = _client(url, 1, timeout_seconds)
        self._location = without_password(url)

    @classmethod
    async def open(cls, url: str, *, timeout_seconds: float) -> "Connection":
        """Connect to a redis://, rediss:// or unix:// URL.

        Raises InputError for another URL, StateUnavailable if no Redis answers.
        """
        connection = cls(url, timeout_seconds=timeout_seconds)
        try:
            await connection.call("PING")
        except BaseException:
            await connection.close()
            raise
        return connection

    async def close(self) -> None:
        """Close every connection of the pool."""
        await self.health.close()
        await self._for_pings.aclose()
        await self._redis.aclose()

    async def call(self, *command: Argument) -> Any:
        """The raw reply to one command."""
        async with self.health.observed_call():
            return await self._result(_command(self._redis, *command))

    async def call_all(self, commands: Sequence[Command], *, atomic: bool = False) -> list[Any]:
        """The raw replies to several commands sent at once, in order; the first error is raised.

        `atomic`: nothing else runs between them (all keys must share a hash tag).
        """
        return self._without_error(await self._send(commands, atomic=atomic))

    async def create_groups(self, streams: Sequence[str], group: str) -> None:
        """Create a consumer group over each whole stream; existing ones are kept."""
        commands: list[Command] = [
            ("XGROUP", "CREATE", stream, group, "0", "MKSTREAM") for stream in streams
        ]
        replies = await self._send(commands)
        self._without_error([each for each in replies if not str(each).startswith("BUSYGROUP")])

    async def run(
        self, script: str, keys: Sequence[str], arguments: Sequence[Argument] = ()
    ) -> Any:
        """The reply of one script: `scripts/SCRIPT.lua`."""
        return (await self.run_all(script, [(keys, arguments)]))[0]

    async def run_all(self, script: str, calls: Sequence[Call]) -> list[Any]:
        """The replies of one script called several times, all sent at once."""
        source, digest = read_script(script)
        commands: list[Command] = [
            ("EVALSHA", digest, len(keys), *keys, *arguments) for keys, arguments in calls
        ]
        replies = await self._send(commands)
        # A restarted Redis has no scripts. Only the calls refused for that reason are repeated.
        unknown = [
            k for k, reply in enumerate(replies) if isinstance(reply, exceptions.NoScriptError)
        ]
        if unknown:
            await self.call("SCRIPT", "LOAD", source)
            again = await self._send([commands[k] for k in unknown])
            for k, reply in zip(unknown, again, strict=True):
                replies[k] = reply
        return self._without_error(replies)

    async def _send(self, commands: Sequence[Command], *, atomic: bool = False) -> list[Any]:
        if not commands:
            return []
        async with self.health.observed_call():
            return await self._result(_pipeline(self._redis, commands, atomic=atomic))

    async def _ping(self) -> None:
        await self._result(_command(self._for_pings, "PING"))

    async def _result(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; if this task is cancelled meanwhile, CancelledError at once.

        redis-py sends inside asyncio.wait_for, which on Python 3.11 loses a cancellation that
        arrives as the sending ends. A task that loops over calls would then never end, nor its
        process on SIGTERM, and a request would wait three timeouts past its deadline (6 s, measured
        with a frozen Redis). So the work runs in its own task, which ends at its own timeouts at
        the latest.
        """
        task = asyncio.create_task(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            raise
        except (exceptions.RedisError, OSError) as error:
            self._translate(error)
        except RuntimeError as error:
            if _CLOSED_IN_UVLOOP not in str(error):
                raise
            self._translate(exceptions.ConnectionError(str(error)))

    def _without_error(self, replies: list[Any]) -> list[Any]:
        for reply in replies:
            if isinstance(reply, Exception):
                self._translate(reply)
        return replies

    def _translate(self, error: Exception) -> NoReturn:
        message = str(error)
        if isinstance(error, _NO_CONNECTION):
            self.health.check()
        if isinstance(error, exceptions.ResponseError) and _NO_GROUP.search(message):
            raise GroupMissing(message) from error
        if isinstance(error, _UNAVAILABLE) or message.startswith(_NOT_NOW):
            raise StateUnavailable(
                f"Redis at {self._location} does not serve ({type(error).__name__}: {message}); "
                "start it or correct REDIS_URL"
            ) from error
        raise StateError(f"Redis at {self._location} refused a command: {message}") from error


def _client(url: str, max_connections: int, timeout_seconds: float) -> Redis:
    """A client with its own pool; raises InputError for an invalid URL."""
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            timeout=timeout_seconds,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            # One immediate retry replaces a connection from before a restart of Redis, and
            # reports a Redis that is down without a pause.
            retry=Retry(NoBackoff(), 1),
            retry_on_error=[RuntimeError],  # _CLOSED_IN_UVLOOP
            protocol=2,
        )
    except ValueError as error:
        raise InputError(
            f"{without_password(url)!r} is not a Redis URL ({error}); "
            "use redis://HOST:PORT/DB, rediss://... or unix:///PATH"
        ) from error
    redis = Redis.from_pool(pool)
    redis.response_callbacks.clear()
    return redis


async def _command(redis: Redis, *command: Argument) -> Any:
    return await redis.execute_command(*command)  # type: ignore[no-untyped-call]


async def _pipeline(redis: Redis, commands: Sequence[Command], *, atomic: bool) -> list[Any]:
    async with redis.pipeline(transaction=atomic) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies


def without_password(url: str) -> str:
    """The URL for messages and logs."""
    password = urlsplit(url).password
    if password is not None:
        url = url.replace(f":{password}@", ":***@")
    return _PASSWORD_IN_QUERY.sub(r"\1=***", url)
