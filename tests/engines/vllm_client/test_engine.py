"""The vLLM client and one server: what it asks for, what it sends, and how it reads answers."""

import asyncio
from typing import Any

import httpx
import pytest

from services.core.errors import (
    AnswerTokenMissing,
    EngineError,
    EngineOverloaded,
    EngineRefused,
    EngineUnavailable,
    ModelUnusable,
)
from services.core.prompts import GenerationLimits, Message, Messages
from services.core.scoring import AnswerLogprobs
from services.engines.contract import hit_limit
from services.engines.vllm_client.engine import VllmEngine
from tests.engines.conftest import a_prompt
from tests.engines.vllm_client.vllm_servers import (
    MAX_TOKENS,
    FakeServer,
    a_completion,
    an_engine,
    an_error,
    until,
)

LIMITS = GenerationLimits(max_new_tokens=7)


async def an_engine_that_freezes(server: FakeServer) -> VllmEngine:
    """With one slot."""
    engine = await an_engine(server, max_in_flight=1)
    server.frozen = True
    return engine


def the_image(body: dict[str, Any]) -> dict[str, Any]:
    return body["messages"][0]["content"][0]


async def test_a_score_asks_the_adapter_for_one_token_and_the_two_answers_alone():
    server = FakeServer(complete=lambda _: a_completion(_70=-0.25, _71=-1.5, _9=-3.0))
    engine = await an_engine(server)

    assert await engine.score(a_prompt()) == AnswerLogprobs(yes=-0.25, no=-1.5)
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"]) == ("lora", 1)
    assert body["logprob_token_ids"] == [70, 71]
    # What an older vLLM reads instead.
    assert (body["allowed_token_ids"], body["top_logprobs"]) == ([70, 71], 2)


@pytest.mark.parametrize(("reason", "is_cut"), [("stop", False), ("length", True), (None, False)])
async def test_a_text_says_whether_the_token_limit_ended_it(reason: str | None, is_cut: bool):
    server = FakeServer(complete=lambda _: a_completion(" a fox ", reason))
    engine = await an_engine(server)

    assert hit_limit(await engine.generate(a_prompt(), LIMITS)) == is_cut


async def test_a_text_is_the_base_models_and_greedy():
    server = FakeServer(complete=lambda _: a_completion(" a fox "))
    engine = await an_engine(server)

    assert await engine.generate(a_prompt(), LIMITS) == "a fox"
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("base", 7, 0)


async def test_scores_are_computed_before_texts_that_wait():
    server = FakeServer()
    engine = await an_engine(server)
    await engine.generate(a_prompt(), LIMITS)
    await engine.score(a_prompt())

    text, score = server.bodies
    assert score["priority"] < text["priority"]  # to vLLM the lower number is the more urgent


# --- images ------------------------------------------------------------------------------------


async def test_an_image_goes_before_the_text_under_its_items_id_and_version():
    server = FakeServer()
    engine = await an_engine(server)
    [prompt] = a_prompt()
    await engine.generate((prompt,), LIMITS)

    image, text = server.bodies[0]["messages"][0]["content"]
    assert prompt.image is not None
    assert image["uuid"] == f"i1:{prompt.image.version}"
    assert text["text"] == prompt.text


async def test_an_image_is_sent_once_and_then_named():
    server = FakeServer()
    engine = await an_engine(server)
    await engine.score(a_prompt())
    await engine.score(a_prompt(taste="blue"))

    first, second = (the_image(body) for body in server.bodies)
    assert first["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert second == {"type": "image_url", "image_url": None, "uuid": first["uuid"]}


async def test_an_image_that_the_server_has_forgotten_is_sent_again_at_once():
    server = FakeServer()
    engine = await an_engine(server)
    await engine.score(a_prompt())
    server.holds.clear()

    await engine.score(a_prompt())
    assert [the_image(body)["image_url"] is None for body in server.bodies] == [
        False, True, False,
    ]  # fmt: skip


async def test_two_prompts_at_once_both_bring_an_image_that_no_server_holds_yet():
    both_there = asyncio.Barrier(2)

    async def answer_both(_: object) -> httpx.Response:
        await both_there.wait()
        return a_completion()

    server = FakeServer(complete=answer_both)
    engine = await an_engine(server)

    await asyncio.gather(engine.score(a_prompt()), engine.score(a_prompt(taste="blue")))
    assert all(the_image(body)["image_url"] for body in server.bodies)


async def test_a_server_that_misses_what_it_was_just_sent_is_not_asked_for_ever():
    miss = an_error(400, "Cache miss for image at index 0 but data is not provided.")
    engine = await an_engine(FakeServer(complete=lambda _: miss))

    with pytest.raises(EngineUnavailable, match="Cache miss"):
        await engine.score(a_prompt())


# --- answers that are none -----------------------------------------------------------------------


async def test_an_answer_token_that_the_server_leaves_out_is_an_error_not_a_default():
    engine = await an_engine(FakeServer(complete=lambda _: a_completion(_70=-0.25)))

    with pytest.raises(AnswerTokenMissing, match="token_id:71"):
        await engine.score(a_prompt())


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>Welcome</html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"choices": []}),
        httpx.Response(200, json={"choices": [{"message": {}}]}),
        httpx.Response(200, json={"choices": [{"message": {"content": 3}, "logprobs": None}]}),
        a_completion(_70=float("nan"), _71=-1.0),
        a_completion(_70=float("-inf"), _71=-1.0),
        a_completion(_70=None, _71=-1.0),
        httpx.Response(302, headers={"location": "http://elsewhere"}),
    ],
)
async def test_garbage_is_never_a_score(answer: httpx.Response):
    engine = await an_engine(FakeServer(complete=lambda _: answer))

    with pytest.raises(EngineUnavailable, match="http://a"):
        await engine.score(a_prompt())


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, EngineRefused), (413, EngineRefused), (429, EngineOverloaded), (503, EngineOverloaded),
     (500, EngineUnavailable), (404, ModelUnusable), (401, ModelUnusable)],
)  # fmt: skip
async def test_each_refusal_of_the_server_has_its_own_error(status: int, error: type[EngineError]):
    engine = await an_engine(FakeServer(complete=lambda _: an_error(status)))

    with pytest.raises(error, match=rf"http://a/\S+ answered {status}: why not"):
        await engine.generate(a_prompt(), LIMITS)


# --- how much at once ----------------------------------------------------------------------------


async def test_more_prompts_than_slots_wait_here_and_not_in_the_server():
    gate = asyncio.Event()
    server = FakeServer()

    async def wait(_: object) -> httpx.Response:
        most.append(server.num_running)
        await gate.wait()
        return a_completion("x")

    most: list[int] = []
    server.complete = wait
    engine = await an_engine(server, max_in_flight=3)
    asking = asyncio.gather(*(engine.generate(a_prompt(str(k)), LIMITS) for k in range(10)))
    await until(lambda: server.num_running == 3)
    gate.set()

    assert len(await asking) == 10
    assert max(most) == 3


async def test_a_cancelled_prompt_leaves_the_server_and_gives_its_slot_back():
    server = FakeServer()
    engine = await an_engine_that_freezes(server)
    asking = asyncio.create_task(engine.score(a_prompt()))
    await server.asked.wait()

    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert server.num_running == 0
    server.frozen = False
    assert await engine.score(a_prompt()) == AnswerLogprobs(yes=-0.25, no=-1.5)


async def test_closing_answers_those_who_still_wait():
    server = FakeServer()
    engine = await an_engine_that_freezes(server)
    asking = asyncio.gather(
        *(engine.score(a_prompt(str(k))) for k in range(3)), return_exceptions=True
    )
    await server.asked.wait()

    await engine.close()
    assert [type(error) for error in await asking] == [EngineUnavailable] * 3
    with pytest.raises(EngineUnavailable, match="closed"):
        await engine.score(a_prompt())


# --- too long ------------------------------------------------------------------------------------


def a_long_prompt(num_words: int) -> Messages:
    """`num_words` words of which all but the last two may be cut."""
    free = "word " * (num_words - 2)
    return (Message("user", f"{free}the question?", free=((0, len(free) - 1),)),)


def refuse_the_long(body: dict[str, Any]) -> httpx.Response:
    num_words = len(body["messages"][0]["content"].split())
    if num_words + body["max_tokens"] > MAX_TOKENS:
        return an_error(400, "This model's maximum context length is", "input_tokens")
    return a_completion(f"{num_words} words")


async def test_a_prompt_that_is_too_long_is_shortened_as_little_as_needed_and_counted():
    server = FakeServer(complete=refuse_the_long)
    engine = await an_engine(server)

    written = await engine.generate(a_long_prompt(MAX_TOKENS + 100), LIMITS)

    # 107 words too many are 7 cuts of 16.
    assert written == f"{MAX_TOKENS + 100 - 7 * 16} words"
    assert server.bodies[-1]["messages"][0]["content"].endswith("word the question?")
    assert engine.num_shortened == 1


async def test_a_prompt_that_fits_is_not_counted_as_shortened():
    engine = await an_engine(FakeServer(complete=refuse_the_long))

    assert await engine.generate(a_long_prompt(100), LIMITS) == "100 words"
    assert engine.num_shortened == 0


async def test_a_prompt_whose_fixed_part_is_too_long_is_refused_with_the_remedy():
    engine = await an_engine(FakeServer(complete=refuse_the_long))

    with pytest.raises(EngineRefused, match="--max-model-len"):
        await engine.generate((Message("user", "fox " * 5000),), LIMITS)
