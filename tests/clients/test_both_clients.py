"""The two clients are one: the same methods, the same requests, the same answers and errors."""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from clients.python import (
    AsyncMsrClient,
    MsrClient,
    ProblemError,
    Retries,
    ServerUnreachable,
    StillUpdating,
    UnknownUser,
    client,
)
from clients.python.client import ApiMethods
from clients.python.errors import ProblemError as Root
from services.api.http import problems
from services.core import wire
from tests.clients.serving import Reply, ScriptedServer

ARGUMENTS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "recommend": (("u/1",), {"k": 3, "candidates": ["i1"], "mode": "mllm"}),
    "interact": ((wire.InteractionIn(user_id="u", item_id="i", timestamp_ms=1),), {}),
    "preference": (("u/1",), {}),
    "personas": ((), {}),
    "forget": (("u/1",), {}),
    "put_item": (("i1", "A fox"), {"image": b"bytes"}),
    "item": (("i/1",), {}),
    "delete_item": (("i/1",), {}),
    "adapters": ((), {}),
    "activate_adapter": (("own",), {}),
    "roll_back_adapter": ((), {}),
    "set_shadow": (("own",), {"share": 0.5}),
    "clear_shadow": ((), {}),
    "set_experiment": (("e", [wire.ArmIn(name=n, adapter="own") for n in "ab"]), {}),
    "end_experiment": ((), {}),
    "version": ((), {}),
}


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_both_have_the_same_methods() -> None:
    assert public(MsrClient) - {"close"} == public(AsyncMsrClient) - {"aclose"}
    assert set(ARGUMENTS) == public(ApiMethods)


@pytest.mark.parametrize("name", ARGUMENTS)
async def test_both_send_the_same(name: str) -> None:
    sent: list[tuple[str, str, bytes, dict[str, str]]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append((request.method, str(request.url), request.content, dict(request.headers)))
        return httpx.Response(200, text="no answer of this API")

    transport = httpx.MockTransport(answer)
    args, kwargs = ARGUMENTS[name]
    outcomes = []
    with MsrClient("http://x", api_key="k", transport=transport) as blocking:
        outcomes.append(await outcome_of(lambda: asyncio.to_thread(getattr(blocking, name), *args,
                                                                   **kwargs)))  # fmt: skip
    async with AsyncMsrClient("http://x", api_key="k", transport=transport) as awaited:
        outcomes.append(await outcome_of(lambda: getattr(awaited, name)(*args, **kwargs)))
    assert sent[0] == sent[1]
    assert outcomes[0] == outcomes[1]


async def outcome_of(ask: Callable[[], Awaitable[Any]]) -> str:
    try:
        return repr(await ask())
    except ServerUnreachable as error:
        return str(error)


def test_a_method_shows_the_signature_and_the_words_of_its_route() -> None:
    shown = inspect.signature(MsrClient("http://x").recommend)
    assert list(shown.parameters)[:3] == ["user_id", "candidates", "k"]
    assert shown.return_annotation is wire.RecommendResponse
    assert "best first" in (MsrClient.recommend.__doc__ or "")  # type: ignore[call-overload]


async def test_the_asynchronous_client_talks_to_the_real_api(base_url: str) -> None:
    async with AsyncMsrClient(base_url) as msr:
        answers = await asyncio.gather(*(msr.recommend("u1", k=2) for _ in range(8)))
        assert {len(answer.items) for answer in answers} == {2}
        version = (await msr.interact(wire.InteractionIn(user_id="new", item_id="i1"))).versions
        assert version == {"new": 1}
        with pytest.raises(StillUpdating, match="covers 0 of 1"):
            await msr.wait_for_version("new", 1, timeout_seconds=0)
        assert (await msr.wait_for_version("u1", 1)).preference == "likes i1"
        await msr.forget("new")
        with pytest.raises(UnknownUser):
            await msr.preference("new")


async def test_the_asynchronous_client_tries_again() -> None:
    outcomes = [httpx.Response(503), httpx.ConnectError("refused"), httpx.Response(204)]

    def answer(request: httpx.Request) -> httpx.Response:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    retries = Retries(first_pause_seconds=0.0)
    async with AsyncMsrClient(
        "http://x", transport=httpx.MockTransport(answer), retries=retries
    ) as msr:
        await msr.forget("u1")
    assert not outcomes


def test_every_class_of_problem_is_one_that_the_server_answers() -> None:
    served = {kind.type for kind in (*problems.KINDS.values(), *problems._OF_FRAMEWORK.values())}
    assert {kind.type for kind in Root.__subclasses__()} <= served


def test_a_problem_without_a_class_of_its_own_is_a_problem() -> None:
    example = wire.Problem.model_config["json_schema_extra"]["examples"][0]
    problem = wire.Problem(**{**example, "type": "/problems/new-kind"})
    assert type(ProblemError.of(problem)) is ProblemError
    assert type(ProblemError.of(wire.Problem(**example))) is UnknownUser


def examples() -> list[str]:
    """The code of the module's docstring, block by block."""
    blocks: list[str] = []
    for part in (client.__doc__ or "").split("\n\n"):
        if part.startswith("    "):
            blocks.append("\n".join(line.removeprefix("    ") for line in part.splitlines()))
    return blocks


def test_three_lines_import_the_client_and_make_the_first_call(
    base_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    three = examples()[0]
    assert len(three.splitlines()) == 3
    exec(
        three.replace("http://127.0.0.1:8000", base_url).replace("msr_client", "clients.python"), {}
    )
    assert "RecommendedItem" in capsys.readouterr().out


async def test_the_example_of_watching_prints_each_preference(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    body = wire.PreferenceResponse.model_json_schema()["examples"][0]
    piece = f"event: preference\ndata: {json.dumps(body)}\n\nevent: forgotten\ndata: {{}}\n\n"
    url = server.play(Reply([piece.encode()], "end"))
    code = examples()[1].replace("http://127.0.0.1:8000", url)
    indented = "\n".join(f"    {line}" for line in code.splitlines())
    names: dict[str, Any] = {"AsyncMsrClient": AsyncMsrClient}
    exec(f"async def example():\n{indented}", names)
    await names["example"]()
    assert body["preference"] in capsys.readouterr().out.splitlines()
