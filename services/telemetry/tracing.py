"""OpenTelemetry traces. Without `configure` nothing of OpenTelemetry is imported.

    with tracing.span("POST /recommend", parent=headers) as span:
        span.note(status=200)

Spans are sent by OTLP over HTTP. The SDK's environment variables apply too (OTEL_SERVICE_NAME,
OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, ...). Like a log, a trace contains no prompt, no
history and no credential. It names the class of an error, not its text, which may quote a request.
"""

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, ParamSpec, TypeVar

from services.core.errors import InputError
from services.telemetry import build

P = ParamSpec("P")
T = TypeVar("T")
Kind = Literal["INTERNAL", "SERVER", "CLIENT", "CONSUMER"]
Value = str | int | float | bool

MAX_LINKS = 16
CLOSE_SECONDS = 3


class Span:
    """One piece of work; does nothing unless traces are on."""

    def __init__(self, span: Any = None) -> None:
        """`span` is OpenTelemetry's, None while traces are off."""
        self._span = span

    def rename(self, name: str) -> None:
        """Set a name that was not known when the span began."""
        if self._span is not None:
            self._span.update_name(name)

    def note(self, **attributes: Value) -> None:
        """Add attributes."""
        if self._span is not None:
            self._span.set_attributes({f"msr.{key}": value for key, value in attributes.items()})

    def fail(self, reason: str) -> None:
        """Mark the span as failed, without an exception."""
        if self._span is not None:
            from opentelemetry.trace import StatusCode

            self._span.set_status(StatusCode.ERROR, reason)


class _Tracing:
    """The tracer, its provider and its propagator."""

    def __init__(self, service: str, endpoint: str) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise InputError(
                f"traces go to {endpoint}, but OpenTelemetry is not installed ({error}); run "
                "`pip install 'mllm-msr[tracing]'`, or unset MSR_OTLP_ENDPOINT"
            ) from error
        own = {"service.name": service, "service.version": build.version()}
        named = dict(OTELResourceDetector().detect().attributes)
        self.trace = trace
        resource = Resource.create({**own, **named})
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        address = f"{endpoint.rstrip('/')}/v1/traces"
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address)))
        self.tracer = self.provider.get_tracer("msr")
        self.propagator = TraceContextTextMapPropagator()

    def context_of(self, traceparent: str) -> Any:
        context = self.propagator.extract({"traceparent": traceparent})
        return self.trace.get_current_span(context).get_span_context()


_tracing: _Tracing | None = None


def configure(service: str, *, endpoint: str | None) -> None:
    """Send traces of this process, as `service`, to a collector at `endpoint`; None: do not.

    InputError if OpenTelemetry is not installed.
    """
    global _tracing
    _tracing = None if endpoint is None else _Tracing(service, endpoint)


def close() -> None:
    """Send the waiting spans, for CLOSE_SECONDS at most, and stop tracing."""
    global _tracing
    if _tracing is not None:
        # While the collector is unavailable, `shutdown` returns only after its last try.
        closing = threading.Thread(target=_tracing.provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)
    _tracing = None


@contextmanager
def span(
    name: str,
    *,
    kind: Kind = "INTERNAL",
    parent: Mapping[str, str] | None = None,
    linked: Iterable[str] = (),
    **attributes: Value,
) -> Iterator[Span]:
    """A span around the block. Its parent is the current span, or the one that the W3C headers in
    `parent` name; `linked` are traceparents of other requests that it belongs to.
    """
    if _tracing is None:
        yield Span()
        return
    contexts = [_tracing.context_of(each) for each in linked]
    with _tracing.tracer.start_as_current_span(
        name,
        context=None if parent is None else _tracing.propagator.extract(parent),
        kind=_tracing.trace.SpanKind[kind],
        links=[_tracing.trace.Link(each) for each in contexts[-MAX_LINKS:]],
        record_exception=False,
        set_status_on_exception=False,
    ) as inner:
        wrapped = Span(inner)
        wrapped.note(**attributes)
        try:
            yield wrapped
        except asyncio.CancelledError:
            wrapped.note(cancelled=True)
            raise
        except Exception as error:
            wrapped.fail(type(error).__name__)
            raise


def traced(name: str) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]:
    """A span around each call of an asynchronous function."""

    def wrap(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        @functools.wraps(function)
        async def in_a_span(*args: P.args, **kwargs: P.kwargs) -> T:
            with span(name):
                return await function(*args, **kwargs)

        return in_a_span

    return wrap


def headers() -> dict[str, str]:
    """W3C headers with which another process continues this trace; none while traces are off."""
    carrier: dict[str, str] = {}
    if _tracing is not None:
        _tracing.propagator.inject(carrier)
    return carrier


def traceparent() -> str:
    """The current span as a W3C header; "" if there is none."""
    return headers().get("traceparent", "")
