"""What is counted of the prompts of any engine."""

import asyncio
import json

import httpx
import pytest
from prometheus_client import CollectorRegistry

from services.core.errors import EngineRefused
from services.core.prompts import GenerationLimits
from services.deployment.assemble import DEMO_WEIGHTS
from services.engines.contract import AdapterHost
from services.engines.instrumented import EngineMetrics, instrumented, unwrapped
from services.engines.local.engine import LocalEngine
from tests.engines.conftest import a_prompt
from tests.engines.vllm_client.vllm_servers import FakeServer, a_completion, an_engine, an_error


class Watched:
    """An engine under observation, and what was counted."""

    def __init__(self, engine) -> None:
        self._registry = CollectorRegistry()
        self.engine = instrumented(engine, EngineMetrics(self._registry))

    def count(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(name, labels)

    def tokens(self, verb: str) -> list[float | None]:
        kinds = ("prompt", "cached", "generated")
        return [self.count("msr_engine_tokens_total", verb=verb, kind=kind) for kind in kinds]


def an_answer_that_cost(text: str, **usage: object) -> httpx.Response:
    answer = json.loads(a_completion(text).content)
    return httpx.Response(200, json={**answer, "usage": usage})


async def test_tokens_are_counted_as_the_server_tells_them():
    details = {"cached_tokens": 30}
    server = FakeServer(
        complete=lambda _: an_answer_that_cost(
            "a fox", prompt_tokens=40, completion_tokens=5, prompt_tokens_details=details
        )
    )
    measured = Watched(await an_engine(server))

    await measured.engine.generate(a_prompt(), GenerationLimits(7))
    await measured.engine.score(a_prompt())

    assert measured.tokens("generate") == measured.tokens("score") == [40, 30, 5]
    assert measured.count("msr_engine_prompts_total", verb="score", outcome="answered") == 1
    assert measured.count("msr_engine_prompt_seconds_count", verb="score") == 1


@pytest.mark.parametrize("usage", [None, "many", {"prompt_tokens_details": [1]}])
async def test_a_server_that_tells_no_tokens_is_no_failure(usage: object):
    answer = json.loads(a_completion().content) | {"usage": usage}
    server = FakeServer(complete=lambda _: httpx.Response(200, json=answer))
    measured = Watched(await an_engine(server))

    await measured.engine.score(a_prompt())

    assert measured.tokens("score") == [0, 0, 0]


async def test_a_prompt_that_failed_is_counted_by_its_error_and_costs_no_tokens():
    measured = Watched(await an_engine(FakeServer(complete=lambda _: an_error(400))))

    with pytest.raises(EngineRefused):
        await measured.engine.score(a_prompt())

    assert measured.count("msr_engine_prompts_total", verb="score", outcome="EngineRefused") == 1
    assert measured.tokens("score") == [None, None, None]


async def test_a_prompt_that_nobody_waited_for_is_counted_as_cancelled():
    server = FakeServer()
    measured = Watched(await an_engine(server))
    server.frozen = True
    asking = asyncio.create_task(measured.engine.score(a_prompt()))
    await server.asked.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    assert measured.count("msr_engine_prompts_total", verb="score", outcome="cancelled") == 1


async def test_the_local_engine_tells_the_tokens_that_it_read_and_wrote(checkpoint, adapter):
    measured = Watched(LocalEngine.load(str(checkpoint), str(adapter)))
    await measured.engine.score(a_prompt())
    await measured.engine.generate(a_prompt(), GenerationLimits(3))
    await measured.engine.close()

    (read, _, scored), (read_again, _, written) = map(measured.tokens, ("score", "generate"))
    assert read == read_again
    assert read > 36  # tokens of the image alone
    assert (scored, written) == (1, 3)


async def test_what_an_engine_offers_beside_the_contract_is_found_behind_it():
    engine = await an_engine(FakeServer())
    measured = Watched(engine)

    assert unwrapped(measured.engine) is engine
    assert unwrapped(engine) is engine
    assert measured.engine.identity == engine.identity


async def test_what_a_loaded_adapter_is_asked_counts_too():
    host = LocalEngine.load(str(DEMO_WEIGHTS / "base"))
    measured = Watched(host)
    assert isinstance(measured.engine, AdapterHost)

    scorer = await measured.engine.load_adapter(str(DEMO_WEIGHTS / "adapter"))
    await scorer.score(a_prompt())
    await measured.engine.unload_adapter(scorer)
    await measured.engine.close()

    assert measured.count("msr_engine_prompts_total", verb="score", outcome="answered") == 1
    assert scorer.identity.adapter
