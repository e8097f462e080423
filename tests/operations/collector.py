"""An OpenTelemetry collector made of Python: takes spans by OTLP over HTTP and keeps them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.processes import PATIENCE_SECONDS


@dataclass(frozen=True)
class Received:
    """One span; ids in hex, `parent` "" for a root."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent: str
    links: tuple[str, ...]
    attributes: dict[str, str]
    failed: bool


class Collector:
    """What has come in so far."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._spans: list[Received] = []
        self._come = threading.Condition()

    def spans(self, trace_id: str | None = None) -> list[Received]:
        with self._come:
            return [s for s in self._spans if trace_id in (None, s.trace_id)]

    def wait_for(self, name: str, *, trace_id: str = "", **attributes: str) -> Received:
        """The first span of this name with these attributes (in this trace), once it has come."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        with self._come:
            while True:
                for span in self._spans:
                    fits = name == span.name and trace_id in ("", span.trace_id)
                    if fits and attributes.items() <= span.attributes.items():
                        return span
                names = sorted({f"{s.service}: {s.name}" for s in self._spans})
                assert self._come.wait(give_up - time.monotonic()), f"no {name} among {names}"

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        found = [
            Received(
                service=_attributes(resource.resource)["service.name"],
                name=span.name,
                trace_id=span.trace_id.hex(),
                span_id=span.span_id.hex(),
                parent=span.parent_span_id.hex(),
                links=tuple(link.span_id.hex() for link in span.links),
                attributes=_attributes(span),
                failed=span.status.code == span.status.STATUS_CODE_ERROR,
            )
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._come:
            self._spans += found
            self._come.notify_all()


def _attributes(holder) -> dict[str, str]:
    """As text, whatever their type."""
    return {
        each.key: str(getattr(each.value, each.value.WhichOneof("value")))
        for each in holder.attributes
    }


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            collector.take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
