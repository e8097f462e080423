"""What dashboard and alert rules ask of vLLM, and what a request's id becomes there."""

import httpx
import pytest

from services.core.prompts import Messages
from services.engines.vllm import VllmEngine
from services.telemetry import origin
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


@pytest.fixture
def telling_server(start_model_server: StartModelServer) -> ModelServer:
    """One that logs requests."""
    return start_model_server("--enable-log-requests", adapter=f"demo-adapter={ADAPTER}")


async def test_vllms_log_names_the_request_and_tells_no_prompt(
    telling_server: ModelServer, scoring_prompts: list[Messages]
):
    engine = await VllmEngine.connect([telling_server.url], model="demo", adapter="demo-adapter")
    with origin.serving("from-a-browser"):
        await engine.score(scoring_prompts[0])
    await engine.close()

    telling_server.wait_for_log("Received request chatcmpl-from-a-browser-")
    assert "Likes " not in telling_server.log()
