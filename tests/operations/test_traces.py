"""One trace from the caller through API and worker, and nothing of it while traces are off."""

import subprocess
import sys
import time

import pytest

from services.core.errors import InputError
from services.telemetry import request_context, tracing
from tests.engines.conftest import a_prompt
from tests.engines.vllm_client.vllm_servers import FakeServer, an_engine
from tests.operations.collector import Received, collecting
from tests.operations.conftest import CALLER_SPAN, REQUEST_ID, TRACE_ID, Service


def chain(service: Service, span: Received) -> list[str]:
    """The names of a span and all above it in its trace."""
    by_id = {each.span_id: each for each in service.collector.spans(span.trace_id)}
    names = [span.name]
    while span.parent in by_id:
        span = by_id[span.parent]
        names.append(span.name)
    return names


@pytest.mark.slow
def test_a_trace_goes_from_the_caller_through_the_api_to_the_worker(service: Service):
    update = service.collector.wait_for("update", **{"msr.request_ids": REQUEST_ID})
    request = service.collector.wait_for("POST /interactions", **{"msr.request_id": REQUEST_ID})

    assert update.trace_id == request.trace_id == TRACE_ID
    assert (request.parent, update.parent) == (CALLER_SPAN, request.span_id)
    assert (request.service, update.service) == ("msr-api", "msr-worker")


@pytest.mark.slow
def test_the_text_that_an_update_asks_for_is_a_part_of_it(service: Service):
    update = service.collector.wait_for("update", **{"msr.request_ids": REQUEST_ID})
    (written,) = [
        span for span in service.collector.spans(TRACE_ID) if span.name == "engine generate"
    ]

    assert written.parent == update.span_id
    assert int(written.attributes["msr.prompt_tokens"]) > 10


@pytest.mark.slow
def test_a_ranking_shows_its_stages_and_what_they_asked_the_model(service: Service):
    service.collector.wait_for("POST /recommend", **{"msr.request_id": REQUEST_ID})
    spans = service.collector.spans(TRACE_ID)

    (request,) = [span for span in spans if span.name == "POST /recommend"]
    stages = {span.name for span in spans if span.parent == request.span_id}
    assert stages == {"state", "candidates", "scoring"}
    score = next(span for span in spans if span.name == "engine score")
    assert chain(service, score) == ["engine score", "scoring", "POST /recommend"]


@pytest.mark.slow
def test_no_span_tells_a_title_or_a_preference(service: Service):
    text = str(service.collector.spans())

    assert "fox" not in text
    assert "Likes" not in text


async def test_a_model_server_gets_the_trace():
    server = FakeServer()
    engine = await an_engine(server)
    with collecting() as collector:
        tracing.configure("test", endpoint=collector.url)
        with tracing.span("asking", parent={"traceparent": f"00-{TRACE_ID}-{CALLER_SPAN}-01"}):
            await engine.score(a_prompt())
            traceparent = tracing.traceparent()
        tracing.close()
        asking = collector.wait_for("asking")
        await engine.score(a_prompt())

    assert server.headers[0]["traceparent"] == traceparent
    assert traceparent.split("-")[1:3] == [TRACE_ID, asking.span_id]
    assert "traceparent" not in server.headers[1]


async def test_an_error_is_reported_by_its_kind_alone():
    with collecting() as collector:
        tracing.configure("test", endpoint=collector.url)
        with pytest.raises(ValueError, match="private"), tracing.span("failing"):
            raise ValueError("private text")
        tracing.close()
        span = collector.wait_for("failing")

    assert span.failed
    assert "private" not in str(span)


def test_an_update_for_several_requests_is_linked_to_the_others():
    with collecting() as collector:
        tracing.configure("test", endpoint=collector.url)
        others = [f"00-{TRACE_ID}-{number:016x}-01" for number in (1, 2)]
        with tracing.span("update", parent={"traceparent": others[1]}, linked=others[:1]):
            pass
        tracing.close()
        update = collector.wait_for("update")

    assert (update.parent, update.links) == (f"{2:016x}", (f"{1:016x}",))


def test_a_collector_that_is_away_does_not_keep_a_program_from_ending():
    tracing.configure("test", endpoint="http://127.0.0.1:9")
    with tracing.span("lost"):
        pass
    started = time.monotonic()
    tracing.close()

    assert time.monotonic() - started < tracing.CLOSE_SECONDS + 5


def test_while_traces_are_off_nothing_of_opentelemetry_is_imported():
    program = """
import sys
import services.api.main, services.deployment.assemble, services.worker.main
import services.engines.vllm_client.engine
from services.deployment.settings import Settings
from services.telemetry import tracing
tracing.configure("msr-api", endpoint=Settings().otlp_endpoint)
with tracing.span("request", parent={"traceparent": "00-1-2-01"}) as span:
    span.note(status=200)
    span.fail("status 500")
assert tracing.headers() == {}
tracing.close()
# redis-py imports OpenTelemetry's metrics by itself, where they are installed.
parts = ("opentelemetry.sdk.trace", "opentelemetry.exporter")
found = [name for name in sys.modules if name.startswith(parts)]
assert not found, found
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_the_packages_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    with pytest.raises(InputError, match=r"pip install 'mllm-msr\[tracing\]'"):
        tracing.configure("test", endpoint="http://127.0.0.1:9")
    assert request_context.headers() == {}
