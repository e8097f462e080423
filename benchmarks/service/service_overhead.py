"""What does the service cost on top of vLLM when both are saturated?

    msr bench service-overhead [--rounds 4] [--requests 64] [--in-flight 16]

A request scores 12 candidates, items warm, for a user whose preference is new. One side sends
`POST /recommend` to `msr serve`: Redis, cascade, engine, score cache. The other side does nothing
but send vLLM the same 12 prompts, as the service does with images named by their uuid and over
the same kind of connections. What the service sheds is asked again. Either side has the same number
of requests in flight, on the same machine and from the same process, so that what a client costs
counts for both.
"""

import argparse
import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.support import paired_rounds
from benchmarks.support.paired_rounds import Claim, Rounds, add_options
from benchmarks.support.random_model import SHAPES, write_checkpoint
from benchmarks.support.runner import markdown
from benchmarks.support.served_model import MODEL_NAME, TIMEOUT_SECONDS, ServedModel, serve
from benchmarks.support.synthetic_service import SyntheticService, serve_catalogue
from services.core.prompts import scoring_messages
from services.core.records import Item, UserId
from services.core.scoring import NOT_CALIBRATED, AnswerTokens, answer_margin, score_candidates
from services.engines.prompt_encoding import PromptEncoder
from services.engines.vllm_client.server_http import open_session

NUM_CANDIDATES = 12
REQUESTS_IN_FLIGHT = 16
REQUESTS_A_ROUND = 64
# A slow vLLM answers a whole batch at once, then nothing for seconds; meanwhile the service sheds.
ASK_AGAIN_SECONDS = 0.1
BAR = 0.9
QUICK = (*paired_rounds.QUICK, "--requests", "16", "--in-flight", "4")


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """The ratio of requests per second, both sides' rates, and the spread."""
    options = _options(arguments)
    num_rounds = options.rounds
    rounds = Rounds("service-overhead", settle_seconds=options.settle_seconds)
    num_users = options.in_flight + 2 * num_rounds * options.requests
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(Path(folder) / "checkpoint", SHAPES[options.model])
        async with (
            serve(checkpoint) as model,
            serve_catalogue(model, num_items=NUM_CANDIDATES, num_users=num_users) as service,
            _open_direct(model, checkpoint) as direct,
        ):
            users = iter(service.preference_of)
            await _warm_up(model, service, direct, [next(users) for _ in range(options.in_flight)])
            shed: set[UserId] = set()
            sides = {"direct": _ask_vllm(direct, service), "service": _ask_service(service, shed)}
            for number in range(num_rounds):
                # Who comes first changes, so that neither always follows a warmer machine.
                for side in sorted(sides, reverse=bool(number % 2)):
                    taken = [next(users) for _ in range(options.requests)]
                    await rounds.time(
                        side,
                        lambda: _saturate(sides[side], taken, options.in_flight),  # noqa: B023
                    )
    shed_share = len(shed) / (num_rounds * options.requests)
    measured = rounds.judge(Claim("service", "direct", BAR))
    return {
        "service_overhead": measured["ratio"],
        "requests_per_second": round(options.requests / measured["seconds"], 3),
        "direct_requests_per_second": round(options.requests / measured["against_seconds"], 3),
        "in_flight": options.in_flight,
        "shed_share": round(shed_share, 4),
        "measured": measured,
    }


def table(figures: dict[str, Any]) -> str:
    """One row."""
    measured = figures["measured"]
    low, high = measured["spread"]
    header = ("work", "vLLM, requests/s", "POST /recommend, requests/s", "ratio", "spread")
    row = (
        f"{NUM_CANDIDATES} candidates a request, {figures['in_flight']} requests in flight",
        f"{figures['direct_requests_per_second']:.2f}",
        f"{figures['requests_per_second']:.2f}",
        f"{measured['ratio']:.3f}",
        f"{low:.3f} to {high:.3f}",
        str(measured["rounds"]),
        f"{BAR:g}",
        "yes" if measured["ratio"] >= BAR else "NO",
    )
    shown = markdown((*header, "rounds", "bar", "reached"), [row])
    return f"{shown}\n\n{figures['shed_share']:.1%} of the requests were shed and asked again"


# --- the two sides -------------------------------------------------------------------------------

Ask = Callable[[UserId], Awaitable[object]]


def _ask_service(service: SyntheticService, shed: set[UserId]) -> Ask:
    """A request that the service sheds is asked again; its user is added to `shed`."""

    async def ask(user_id: UserId) -> None:
        while True:
            answer = await service.recommend_in_time(user_id, NUM_CANDIDATES)
            if answer.num_scored == NUM_CANDIDATES:
                return
            if answer.reason != "shed":
                raise RuntimeError(f"{answer.num_scored} candidates were scored: {answer.reason}")
            shed.add(user_id)
            await asyncio.sleep(ASK_AGAIN_SECONDS)

    return ask


def _ask_vllm(direct: "_Direct", service: SyntheticService) -> Ask:
    return lambda user_id: direct.score(service.preference_of[user_id], service.items)


@dataclass(frozen=True, slots=True)
class _Direct:
    """A client of vLLM that knows of nothing else."""

    http: aiohttp.ClientSession
    url: str
    answers: AnswerTokens

    async def score(self, preference: str, items: Sequence[Item]) -> list[float]:
        """The margins of all items, asked for at once."""
        return await asyncio.gather(*(self._margin(preference, item) for item in items))

    async def _margin(self, preference: str, item: Item) -> float:
        [message] = scoring_messages(preference, item)
        image = {
            "type": "image_url",
            "image_url": None,
            "uuid": f"{item.item_id}:{item.version}",
        }
        body = {
            "model": MODEL_NAME,
            "messages": [
                {
                    "role": message.role,
                    "content": [image, {"type": "text", "text": message.text}],
                }
            ],
            "temperature": 0,
            "max_tokens": 1,
            "logprobs": True,
            "logprob_token_ids": [self.answers.yes, self.answers.no],
            "return_tokens_as_token_ids": True,
        }
        async with self.http.post(
            f"{self.url}/v1/chat/completions",
            json=body,
            raise_for_status=True,
            timeout=aiohttp.ClientTimeout(TIMEOUT_SECONDS),
        ) as response:
            [choice] = (await response.json())["choices"]
        [position] = choice["logprobs"]["content"]
        logprob_of = {entry["token"]: entry["logprob"] for entry in position["top_logprobs"]}
        return answer_margin(
            yes=logprob_of[f"token_id:{self.answers.yes}"],
            no=logprob_of[f"token_id:{self.answers.no}"],
        )


@asynccontextmanager
async def _open_direct(model: ServedModel, checkpoint: Path) -> AsyncIterator[_Direct]:
    from transformers import LlavaNextProcessor

    answers = PromptEncoder(LlavaNextProcessor.from_pretrained(checkpoint)).answers
    async with open_session() as http:
        yield _Direct(http, model.url, answers)


async def _warm_up(
    model: ServedModel, service: SyntheticService, direct: _Direct, users: Sequence[UserId]
) -> None:
    """The server gets the images, both sides their connections; and both must say the same."""
    first = service.preference_of[users[0]]
    engine = await score_candidates(model.engine.score, first, service.items, NOT_CALIBRATED)
    margins = await direct.score(first, service.items)
    # bfloat16: what the batch does to a sum's order moves a margin a little.
    if any(abs(mine.margin - theirs) > 0.1 for mine, theirs in zip(engine, margins, strict=True)):
        raise RuntimeError("the direct calls do not ask what the service asks")
    await _saturate(_ask_vllm(direct, service), users, len(users))
    await _saturate(_ask_service(service, set()), users, len(users))


async def _saturate(ask: Ask, users: Sequence[UserId], num_in_flight: int) -> None:
    """Ask for every user, with `num_in_flight` requests under way after a short start.

    It starts with one request, and each first answer adds one more: all at once, the service would
    shed some of them, since it had not seen yet how fast the engine answers.
    """
    waiting, num_started = iter(users), 1

    async def ask_in_turn() -> None:
        nonlocal num_started
        for user_id in waiting:
            await ask(user_id)
            if num_started < num_in_flight:
                num_started += 1
                group.create_task(ask_in_turn())

    async with asyncio.TaskGroup() as group:
        group.create_task(ask_in_turn())


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench service-overhead")
    add_options(parser, rounds=4)
    parser.add_argument(
        "--requests", type=int, default=REQUESTS_A_ROUND, help="of a side, in a round"
    )
    parser.add_argument(
        "--in-flight", type=int, default=REQUESTS_IN_FLIGHT, help="requests at once"
    )
    return parser.parse_args(arguments)
