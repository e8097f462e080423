"""A real vLLM server is killed, frozen and slowed down under load: `msr bench degrade`, short.

Deadlines are judged by the benchmark, on a machine with time for it; here a busy machine is allowed
for. That requests wait for a dead server, fail, or stay cheap afterwards shows all the same.
"""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from benchmarks.resilience.degrade import Load, Service, serving, suffer

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module")]

LOAD = Load(rate=10.0, deadline=1.0, seconds=8.0)
# For a machine that does other things too; a request that waited for httpx would take 5 s more.
ALLOWED_MS = 2000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[Service]:
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder)) as service:
            yield service


@pytest.mark.parametrize("fault", ["frozen", "slow", "killed"])
async def test_every_request_is_answered_and_full_scores_come_back(service: Service, fault: str):
    figures = await suffer(service, fault, LOAD)

    assert (figures["answered_5xx"], figures["unanswered"]) == (0, 0), figures
    assert figures["worst_ms"] < 1000 * LOAD.deadline + ALLOWED_MS, figures
    assert figures["recovery_seconds"] is not None, figures


async def test_a_frozen_server_is_not_waited_for_again_and_again(service: Service):
    figures = await suffer(service, "frozen", Load(rate=10.0, deadline=1.0, seconds=15.0))

    # One that came just before the server froze or thawed may have been answered by it.
    assert figures["full_share_during"] < 0.05, figures
    # The first that waited told the others: most are answered long before their deadline.
    assert figures["p50_ms"] < 1000 * LOAD.deadline / 2, figures
    assert figures["reasons"].keys() & {"engine-timeout", "shed"}, figures
