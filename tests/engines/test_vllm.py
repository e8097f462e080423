"""The vLLM client: what it asks for, and every way in which a server can fail it.

The server here is a scripted transport, for faults that a real one cannot be made to show.
"""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from services.core.errors import (
    AnswerTokenMissing,
    EngineError,
    EngineOverloaded,
    EngineRefused,
    EngineTimeout,
    EngineUnavailable,
    ModelUnusable,
)
from services.core.prompts import GenerationLimits
from services.core.scoring import AnswerLogprobs
from services.engines.vllm import VllmEngine
from tests.engines.conftest import a_prompt

LIMITS = GenerationLimits(max_new_tokens=7)
Answer = Callable[[httpx.Request], httpx.Response]


def a_completion(text: str = "", **logprobs: float) -> dict[str, Any]:
    top = [{"token": f"token_id:{token[1:]}", "logprob": p} for token, p in logprobs.items()]
    return {
        "choices": [
            {"message": {"content": text}, "logprobs": {"content": [{"top_logprobs": top}]}}
        ]
    }


class Server:
    """Serves `base` and its adapter `lora`; completions are answered by `complete`."""

    def __init__(self, complete: Answer) -> None:
        self.complete = complete
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            served = [{"id": name, "root": f"weights of {name}"} for name in ("base", "lora")]
            return httpx.Response(200, json={"data": served})
        body = json.loads(request.content)
        if request.url.path == "/tokenize":
            answered = {"Yes": [70, 2], "No": [71, 2]}
            said = [message["content"] for message in body["messages"][1:]]
            return httpx.Response(
                200, json={"tokens": [1, 5, *(answered[said[0]] if said else [])]}
            )
        self.bodies.append(body)
        return self.complete(request)


async def an_engine(complete: Answer, **names: str | None) -> tuple[VllmEngine, Server]:
    server = Server(complete)
    given = {"model": "base", "adapter": "lora"} | names
    transport = httpx.MockTransport(server)
    return await VllmEngine.connect("http://vllm", transport=transport, **given), server


async def test_a_score_asks_the_adapter_for_one_token_and_the_two_answers_alone():
    engine, server = await an_engine(
        lambda _: httpx.Response(200, json=a_completion(_70=-0.25, _71=-1.5, _9=-3.0))
    )

    assert await engine.score(a_prompt()) == AnswerLogprobs(yes=-0.25, no=-1.5)
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"]) == ("lora", 1)
    assert body["logprob_token_ids"] == [70, 71]


async def test_a_text_is_the_base_models_and_greedy():
    engine, server = await an_engine(lambda _: httpx.Response(200, json=a_completion(" a fox ")))

    assert await engine.generate(a_prompt(), LIMITS) == "a fox"
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("base", 7, 0)


async def test_a_picture_goes_before_the_text_under_its_items_id_and_version():
    engine, server = await an_engine(lambda _: httpx.Response(200, json=a_completion("x")))
    prompt = a_prompt()
    await engine.generate(prompt, LIMITS)

    picture, text = server.bodies[0]["messages"][0]["content"]
    assert prompt[0].picture is not None
    assert picture["uuid"] == f"i1:{prompt[0].picture.version}"
    assert text["text"] == prompt[0].text


async def test_an_answer_token_that_the_server_leaves_out_is_an_error_not_a_default():
    engine, _ = await an_engine(lambda _: httpx.Response(200, json=a_completion(_70=-0.25)))

    with pytest.raises(AnswerTokenMissing, match="token_id:71"):
        await engine.score(a_prompt())


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, EngineRefused), (404, EngineRefused), (429, EngineOverloaded), (503, EngineOverloaded),
     (500, EngineUnavailable)],
)  # fmt: skip
async def test_each_refusal_of_the_server_has_its_own_error(status: int, error: type[EngineError]):
    engine, _ = await an_engine(lambda _: httpx.Response(status, text="why not"))

    with pytest.raises(error, match="why not"):
        await engine.generate(a_prompt(), LIMITS)


@pytest.mark.parametrize(
    ("fault", "error"),
    [(httpx.ReadTimeout("late"), EngineTimeout), (httpx.ReadError("cut"), EngineUnavailable)],
)
async def test_a_network_fault_is_told_as_ours(
    fault: httpx.TransportError, error: type[EngineError]
):
    def fail(_: httpx.Request) -> httpx.Response:
        raise fault

    engine, _ = await an_engine(fail)

    with pytest.raises(error):
        await engine.score(a_prompt())


@pytest.mark.parametrize("names", [{"model": "other"}, {"adapter": "other"}])
async def test_a_server_with_other_models_is_refused_with_what_it_serves(names: dict[str, str]):
    with pytest.raises(ModelUnusable, match=r"\['base', 'lora'\], not 'other'"):
        await an_engine(lambda _: httpx.Response(200), **names)


async def test_nobody_at_the_address_is_told_before_any_work():
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(EngineUnavailable, match="no vLLM server answers at"):
        await VllmEngine.connect("http://vllm", model="base", transport=httpx.MockTransport(refuse))
