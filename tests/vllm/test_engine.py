"""The vLLM client on real servers: the answers of this process, and nothing computed twice."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import httpx
import pytest
from structlog.testing import capture_logs
from yarl import URL

from model_training.demo.world import DEMO_SEED, IMAGE_SIZE, DemoWorld
from services.core.errors import EngineRefused, ModelUnusable
from services.core.images import prepare_image
from services.core.prompts import (
    PREFERENCE_LIMITS,
    SUMMARY_LIMITS,
    GenerationLimits,
    HistoryItem,
    Messages,
    preference_messages,
    scoring_messages,
    summary_messages,
)
from services.core.records import Item, ItemId
from services.core.scoring import answer_margin
from services.engines.contract import AS_SERVED, Engine, EngineOptions
from services.engines.local.engine import LocalEngine
from services.engines.models.image_shapes import find_form
from services.engines.vllm_client.engine import VllmEngine
from services.engines.vllm_client.server_http import HttpResponse, open_session, sender
from tests.families.mixed_covers import mixed_prompts
from tests.vllm.conftest import ADAPTER, BASE, ModelServer, StartModelServer

pytestmark = pytest.mark.vllm

# Once per image and process a real server is slow, and this machine may be busy.
SECONDS = 300.0


@pytest.fixture
async def engine(model_server: str) -> AsyncIterator[VllmEngine]:
    engine = await connect(model_server)
    yield engine
    await engine.close()


@pytest.fixture
async def local() -> AsyncIterator[LocalEngine]:
    engine = LocalEngine.load(BASE, ADAPTER, device="cpu")
    yield engine
    await engine.close()


async def connect(*urls: str, send: Any = None, **options: Any) -> VllmEngine:
    given = {"model": "demo", "adapter": "demo-adapter", "timeout_seconds": SECONDS} | options
    return await VllmEngine.connect(EngineOptions(urls=urls, **given), send=send)


async def margins(engine: Engine, prompts: list[Messages]) -> list[float]:
    answers = await asyncio.gather(*(engine.score(prompt) for prompt in prompts))
    return [answer_margin(yes=answer.yes, no=answer.no) for answer in answers]


def some_items(number: int) -> list[Item]:
    return [
        Item(ItemId(each.item_id), each.title, prepare_image(each.cover_png(), IMAGE_SIZE))
        for each in DemoWorld(DEMO_SEED + 2, num_items=number, num_users=1).items
    ]


# --- the same answers as in this process ---------------------------------------------------------


async def test_margins_of_the_adapter_agree(
    engine: VllmEngine, local: LocalEngine, scoring_prompts: list[Messages]
):
    served, own = await margins(engine, scoring_prompts), await margins(local, scoring_prompts)

    assert len(served) == 200
    assert max(abs(a - b) for a, b in zip(served, own, strict=True)) < 1e-4


async def test_margins_of_the_base_model_agree(model_server: str, scoring_prompts: list[Messages]):
    base, local = await connect(model_server, adapter=None), LocalEngine.load(BASE, device="cpu")
    served, own = await margins(base, scoring_prompts), await margins(local, scoring_prompts)
    await asyncio.gather(base.close(), local.close())

    assert max(abs(a - b) for a, b in zip(served, own, strict=True)) < 1e-4


async def test_margins_of_covers_of_mixed_shapes_agree(engine: VllmEngine, local: LocalEngine):
    prompts = mixed_prompts(find_form(BASE, None))
    served, own = await margins(engine, prompts), await margins(local, prompts)

    assert served == pytest.approx(own, abs=1e-4)
    assert len(set(own)) == len(prompts)


async def test_summaries_are_the_same_words(engine: VllmEngine, local: LocalEngine):
    prompts = [summary_messages(item) for item in some_items(100)]
    served = await asyncio.gather(*(engine.generate(each, SUMMARY_LIMITS) for each in prompts))
    own = await asyncio.gather(*(local.generate(each, SUMMARY_LIMITS) for each in prompts))

    assert sum(a == b for a, b in zip(served, own, strict=True)) >= 99


async def test_the_identity_is_the_local_engines(engine: VllmEngine, local: LocalEngine):
    assert engine.identity == local.identity


async def test_what_is_served_need_not_be_named(model_server: str, local: LocalEngine):
    engine = await connect(model_server, model=AS_SERVED, adapter=AS_SERVED)
    await engine.close()

    assert engine.identity == local.identity


async def test_a_prompt_that_is_too_long_is_shortened_as_the_local_engine_does(
    engine: VllmEngine, local: LocalEngine
):
    summary = " ".join(f"a calm fox in red and blue colors {number}" for number in range(20))
    history = [HistoryItem(f"title {k}", summary) for k in range(30)]
    prompt = preference_messages("likes red", history)
    served = await engine.generate(prompt, PREFERENCE_LIMITS)

    assert served == await local.generate(prompt, PREFERENCE_LIMITS)
    assert engine.num_shortened == local.num_shortened == 1


# --- what is refused -----------------------------------------------------------------------------


async def test_a_server_without_the_adapter_is_refused_with_what_it_has(model_server: str):
    with pytest.raises(ModelUnusable, match=r"adapters \['demo-adapter'\], not 'other'"):
        await connect(model_server, adapter="other")


async def test_a_broken_image_is_refused_and_the_server_goes_on(engine: VllmEngine):
    [message] = scoring_messages("likes red", Item(ItemId("broken"), "a fox", b"no image"))

    with pytest.raises(EngineRefused, match="image"):
        await engine.score((message,))
    assert len(await margins(engine, [scoring_messages("red", some_items(1)[0])])) == 1


# --- nothing twice -------------------------------------------------------------------------------


class Recording:
    """The real network. Records for each prompt whether it brought its image."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._send = sender(session)
        self.brought: list[bool] = []

    async def __call__(
        self, method: str, url: URL, body: bytes | None, headers: Mapping[str, str]
    ) -> HttpResponse:
        if body and b"image_url" in body:
            content = json.loads(body)["messages"][0]["content"]
            self.brought.append(content[0]["image_url"] is not None)
        return await self._send(method, url, body, headers)


@pytest.fixture
async def sent() -> AsyncIterator[Recording]:
    async with open_session() as session:
        yield Recording(session)


async def test_an_image_is_left_out_once_the_server_holds_it(
    model_server: str, scoring_prompts: list[Messages], sent: Recording
):
    engine = await connect(model_server, send=sent)
    first, second = scoring_prompts[:2]  # of one item
    alone = await margins(engine, [second])
    after = await margins(engine, [first]) and await margins(engine, [second])
    await engine.close()

    assert sent.brought == [True, False, False]
    assert after == pytest.approx(alone, abs=1e-5)


@pytest.fixture(scope="session")
def forgetful(start_model_server: StartModelServer) -> ModelServer:
    """A server with room for one image of the demo world (75 kB, processed)."""
    return start_model_server(
        "--mm-processor-cache-gb", "0.0001", adapter=f"demo-adapter={ADAPTER}"
    )


async def test_an_image_that_the_server_has_forgotten_is_sent_again(
    forgetful: ModelServer, scoring_prompts: list[Messages], sent: Recording
):
    engine = await connect(forgetful.url, send=sent)
    one, other = scoring_prompts[0], scoring_prompts[5]  # of two items
    before = await margins(engine, [one])
    await margins(engine, [other])
    again = await margins(engine, [one])
    await engine.close()

    assert sent.brought == [True, True, False, True]
    assert again == pytest.approx(before, abs=1e-5)


async def test_the_server_stops_computing_what_nobody_waits_for(
    engine: VllmEngine, model_server: str
):
    async with httpx.AsyncClient(base_url=model_server, timeout=SECONDS) as http:
        prompt = scoring_messages("likes red", some_items(1)[0])
        endless = GenerationLimits(max_new_tokens=3000)
        asking = [asyncio.create_task(engine.generate(prompt, endless)) for _ in range(8)]
        await until(lambda: num_running(http), at_least=1)
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

        await until(lambda: num_running(http), at_most=0)


async def num_running(http: httpx.AsyncClient) -> float:
    lines = (await http.get("/metrics")).text.splitlines()
    [value] = [line.split()[-1] for line in lines if line.startswith("vllm:num_requests_running")]
    return float(value)


async def until(
    measure: Callable[[], Awaitable[float]], *, at_least: float = 0.0, at_most: float = 1e9
) -> None:
    async with asyncio.timeout(SECONDS):
        while not at_least <= await measure() <= at_most:  # noqa: ASYNC110 (another process)
            await asyncio.sleep(0.02)


# --- two replicas --------------------------------------------------------------------------------


async def test_a_replica_that_is_killed_under_load_costs_no_answer(
    model_server: str, forgetful: ModelServer, scoring_prompts: list[Messages]
):
    engine = await connect(model_server, forgetful.url)
    expected = await margins(engine, scoring_prompts)

    with capture_logs() as logs:
        scoring = asyncio.gather(*(margins(engine, scoring_prompts) for _ in range(3)))
        await asyncio.to_thread(forgetful.kill)
        answered = await scoring
    await engine.close()

    assert "server_marked_down" in [log["event"] for log in logs]
    assert all(each == pytest.approx(expected, abs=1e-4) for each in answered)
