"""How the steps of a conversation are done: blocking, or on the event loop of asyncio.

These two are all that differs between `MsrClient` and `AsyncMsrClient`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import httpx

from clients.python.call_flow import Outcome, Pause, ReadOn, Send, Step, Steps
from clients.python.routes import Answer

# A stream may be silent for as long; the server sends comments more often.
SILENCE_SECONDS = 60.0

Sleep: TypeAlias = Callable[[float], None]
AsyncSleep: TypeAlias = Callable[[float], Awaitable[None]]


class Line:
    """Does the steps of one conversation by blocking. Close it if it may have streamed."""

    def __init__(self, http: httpx.Client, sleep: Sleep = time.sleep) -> None:
        """`sleep` takes seconds."""
        self._http = http
        self._sleep = sleep
        self._response: httpx.Response | None = None
        self._pieces: Iterator[bytes] = iter(())

    def follow(self, steps: Steps[Answer]) -> Answer:
        """Do all steps; what the conversation comes to."""
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as ended:
                answer: Answer = ended.value
                return answer
            outcome = self.do(step)

    def do(self, step: Step) -> Outcome:
        """Do one step; what came of it, errors of the network included."""
        try:
            match step:
                case Pause():
                    self._sleep(step.seconds)
                    return None
                case ReadOn():
                    return next(self._pieces, b"")
                case Send():
                    self.close()
                    request = build_request(self._http, step)
                    response = self._http.send(request, stream=step.streamed)
                    if step.streamed:
                        self._response, self._pieces = response, response.iter_bytes()
                        if not response.is_success:
                            response.read()
                    return response
        except httpx.TransportError as error:
            return error

    def close(self) -> None:
        """End the stream, if there is one."""
        if self._response is not None:
            self._response.close()


class AsyncLine:
    """Does the steps of one conversation by awaiting. Close it if it may have streamed."""

    def __init__(self, http: httpx.AsyncClient, sleep: AsyncSleep = asyncio.sleep) -> None:
        """`sleep` takes seconds."""
        self._http = http
        self._sleep = sleep
        self._response: httpx.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None

    async def follow(self, steps: Steps[Answer]) -> Answer:
        """Do all steps; what the conversation comes to."""
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as ended:
                answer: Answer = ended.value
                return answer
            outcome = await self.do(step)

    async def do(self, step: Step) -> Outcome:
        """Do one step; what came of it, errors of the network included."""
        try:
            match step:
                case Pause():
                    await self._sleep(step.seconds)
                    return None
                case ReadOn():
                    return await anext(self._pieces, b"") if self._pieces is not None else b""
                case Send():
                    await self.aclose()
                    request = build_request(self._http, step)
                    response = await self._http.send(request, stream=step.streamed)
                    if step.streamed:
                        self._response, self._pieces = response, response.aiter_bytes()
                        if not response.is_success:
                            await response.aread()
                    return response
        except httpx.TransportError as error:
            return error

    async def aclose(self) -> None:
        """End the stream, if there is one."""
        if self._response is not None:
            await self._response.aclose()


def build_request(http: httpx.Client | httpx.AsyncClient, step: Send) -> httpx.Request:
    """The request of a step."""
    headers: dict[str, str] = {}
    options: dict[str, Any] = {}
    if step.call.content is not None:
        headers["Content-Type"] = "application/json"
    if step.streamed:
        headers["Accept"] = "text/event-stream"
        bounds = http.timeout.as_dict()
        bounds["read"] = max(bounds["read"] or 0.0, SILENCE_SECONDS)
        options["timeout"] = httpx.Timeout(**bounds)
    if step.last_event_id:
        headers["Last-Event-ID"] = step.last_event_id
    return http.build_request(
        step.call.method, step.call.path, content=step.call.content, headers=headers, **options
    )
