"""An open loop: what was sent before delays nothing, and every answer is counted."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from clients.python import AsyncMsrClient, MsrClient, Retries, UnknownUser
from clients.replay.figures import percentiles_ms
from clients.replay.reading import Row
from clients.replay.replaying import Plan, open_client, replay
from services.core import wire
from services.core.errors import InputError
from tests.clients.serving import PATIENCE_SECONDS

AT_ONCE = 1e9
Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


def rows(num_rows: int, user: str = "u") -> list[Row]:
    return [Row(user, f"i{number}", 1000 + number) for number in range(num_rows)]


def taken(request: httpx.Request) -> httpx.Response:
    batch = wire.InteractionBatch.model_validate_json(request.content)
    answer = wire.InteractionsResponse(
        accepted=len(batch.interactions), duplicates=0, rejected=[], versions={}
    )
    return httpx.Response(202, content=answer.model_dump_json())


def ranked() -> httpx.Response:
    return httpx.Response(200, json=wire.RecommendResponse.model_config["json_schema_extra"][
        "examples"][0])  # fmt: skip


async def replayed(
    handler: Handler, recorded: list[Row], *, stop: asyncio.Event | None = None, **plan: Any
) -> dict[str, Any]:
    transport = httpx.MockTransport(handler)
    async with AsyncMsrClient(
        "http://x", transport=transport, retries=Retries(max_tries=1)
    ) as client:
        stop = stop or asyncio.Event()
        given = Plan(**{"rate": AT_ONCE, **plan})
        return await replay(recorded, client, given, stop=stop, tell=lambda line: None)


async def test_a_server_that_answers_nothing_yet_is_sent_the_rest_all_the_same() -> None:
    all_came = asyncio.Event()
    num_came = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal num_came
        num_came += 1
        if num_came == 5:
            all_came.set()
        await all_came.wait()
        return taken(request)

    figures = await replayed(answer, rows(10), batch_size=2)
    assert (figures["accepted"], figures["next_offset"], figures["errors"]) == (10, 10, {})


async def test_nothing_is_sent_before_it_is_due() -> None:
    came: list[float] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        came.append(time.perf_counter())
        return taken(request)

    started = time.perf_counter()
    figures = await replayed(answer, rows(4), rate=50.0)
    assert all(at >= started + number / 50 for number, at in enumerate(came))
    assert figures["late_ms"]["p50"] >= 0


async def test_a_share_of_the_requests_asks_for_the_users_of_the_batch_before() -> None:
    asked: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/interactions":
            return taken(request)
        asked.append(json.loads(request.content)["user_id"])
        return ranked()

    recorded = rows(4, "a") + rows(4, "b")
    figures = await replayed(answer, recorded, batch_size=2, recommend_share=0.5)
    assert asked == ["a", "a", "b", "b"]
    assert figures["recommendations"] == 4
    assert figures["recommend_ms"]["max"] >= figures["recommend_ms"]["p50"]


async def test_errors_are_counted_by_kind_and_the_offset_stays_at_the_first() -> None:
    problem = {**wire.Problem.model_config["json_schema_extra"]["examples"][0],
               "type": "/problems/backlog-full", "status": 429}  # fmt: skip

    async def answer(request: httpx.Request) -> httpx.Response:
        item_id = json.loads(request.content)["interactions"][0]["item_id"]
        if item_id == "i2":
            return httpx.Response(429, json=problem)
        if item_id == "i4":
            raise httpx.ReadTimeout("late", request=request)
        return taken(request)

    figures = await replayed(answer, rows(6), batch_size=2)
    assert figures["errors"] == {"backlog-full": 1, "ReadTimeout": 1}
    assert (figures["sent"], figures["accepted"], figures["next_offset"]) == (6, 2, 2)


async def test_offset_and_limit_choose_what_is_sent() -> None:
    sent: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        sent.extend(each["item_id"] for each in json.loads(request.content)["interactions"])
        return taken(request)

    figures = await replayed(answer, rows(9), batch_size=2, offset=3, limit=3)
    assert sent == ["i3", "i4", "i5"]
    assert figures["next_offset"] == 6


async def test_replayed_as_of_now_each_is_new() -> None:
    sent: list[dict[str, Any]] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        sent.extend(json.loads(request.content)["interactions"])
        return taken(request)

    await replayed(answer, rows(1) * 2, now=True)
    assert [each.get("timestamp_ms") for each in sent] == [None, None]
    assert sent[0]["event_id"] != sent[1]["event_id"]


async def test_when_it_is_stopped_what_is_under_way_is_waited_for() -> None:
    stop = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        stop.set()
        return taken(request)

    figures = await replayed(answer, rows(1000), stop=stop, rate=0.01)
    assert (figures["sent"], figures["accepted"], figures["next_offset"]) == (1, 1, 1)
    assert figures["interrupted"]


@pytest.mark.parametrize("fault", [{"rate": 0.0}, {"rate": float("nan")}, {"batch_size": 0},
                                   {"batch_size": 1001}, {"recommend_share": 1.0}])  # fmt: skip
def test_a_plan_that_cannot_be_is_refused(fault: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Plan(**fault)


def test_a_key_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(InputError, match="API key"):
        open_client("http://x", api_key="a b", timeout_seconds=1.0)


def test_percentiles_are_values_that_occurred() -> None:
    assert percentiles_ms([]) == {}
    assert percentiles_ms([0.001 * n for n in range(1, 101)]) == {
        "p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0,
    }  # fmt: skip


# --- the command, against the real API -----------------------------------------------------------


def msr_replay(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "services.cli", "replay", *arguments, "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def figures_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate()
    assert process.returncode == 0
    figures: dict[str, Any] = json.loads(out.splitlines()[-1])
    return figures


def test_ctrl_c_ends_with_the_figures_and_the_rest_follows_from_the_offset(
    base_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "a_pairs.tsv"
    path.write_text("replayed\ti1 i2 i3\nother\ti1 i2\nbroken\n")
    slow = msr_replay(str(path), "--url", base_url, "--rate", "0.001")
    with MsrClient(base_url) as client:
        give_up = time.monotonic() + PATIENCE_SECONDS
        while history_version(client, "replayed") == 0:
            assert slow.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.05)
        slow.send_signal(signal.SIGINT)
        begun = figures_of(slow)
        assert (begun["accepted"], begun["next_offset"], begun["interrupted"]) == (1, 1, True)
        assert begun["skipped_rows"] == 1

        again = ("--rate", "1000", "--batch", "2", "--recommend", "0.4")
        rest = figures_of(msr_replay(str(path), "--url", base_url, "--offset", "1", *again))
        assert (rest["accepted"], rest["duplicates"], rest["errors"]) == (4, 0, {})
        assert rest["recommendations"] == 1
        assert history_version(client, "replayed") == 3
        whole = figures_of(msr_replay(str(path), "--url", base_url, "--rate", "1000"))
        assert (whole["accepted"], whole["duplicates"], whole["interrupted"]) == (0, 5, False)


def history_version(client: MsrClient, user_id: str) -> int:
    try:
        return client.preference(user_id).history_version
    except UnknownUser:
        return 0
