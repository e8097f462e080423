"""What dashboard and alert rules ask of vLLM, and what a request's id becomes there."""

from collections.abc import Iterator

import httpx
import pytest

from services.core.prompts import Messages
from services.engines.contract import EngineOptions
from services.engines.vllm_client.engine import VllmEngine
from services.telemetry import request_context, tracing
from tests.operations.collector import Collector, collecting
from tests.operations.monitoring import Exposed, Query, alert_queries, dashboard_queries
from tests.vllm.conftest import ADAPTER, ModelServer, StartModelServer

pytestmark = pytest.mark.vllm

OF_VLLM = [
    query for query in (*dashboard_queries(), *alert_queries()) if "vllm:" in query.expression
]


@pytest.fixture(scope="module")
def exposed(model_server: str) -> Exposed:
    return Exposed([httpx.get(f"{model_server}/metrics").text])


@pytest.mark.parametrize("query", OF_VLLM, ids=str)
def test_every_metric_and_label_that_is_asked_of_vllm_is_exposed(exposed: Exposed, query: Query):
    assert exposed.fault(query) is None


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def telling_server(
    start_model_server: StartModelServer, collector: Collector
) -> Iterator[ModelServer]:
    """One that logs requests and sends traces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        yield start_model_server(
            "--enable-log-requests",
            f"--otlp-traces-endpoint={collector.url}/v1/traces",
            adapter=f"demo-adapter={ADAPTER}",
        )


async def ask(server: ModelServer, prompt: Messages) -> None:
    """Score a prompt for a request `from-a-browser`."""
    engine = await VllmEngine.connect(EngineOptions("demo", "demo-adapter", urls=[server.url]))
    with request_context.serving("from-a-browser"):
        await engine.score(prompt)
    await engine.close()


async def test_vllms_log_names_the_request_and_tells_no_prompt(
    telling_server: ModelServer, scoring_prompts: list[Messages]
):
    await ask(telling_server, scoring_prompts[0])

    telling_server.wait_for_log("Received request chatcmpl-from-a-browser-")
    assert "Likes " not in telling_server.log()


async def test_vllm_goes_on_with_the_trace(
    telling_server: ModelServer, collector: Collector, scoring_prompts: list[Messages]
):
    tracing.configure("test", endpoint=collector.url)
    with tracing.span("asking vllm"):
        await ask(telling_server, scoring_prompts[1])
    tracing.close()

    asking = collector.wait_for("asking vllm")
    request = collector.wait_for("llm_request", trace_id=asking.trace_id)
    assert request.parent == asking.span_id
