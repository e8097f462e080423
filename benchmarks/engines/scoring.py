"""What does it take to score 12 candidates, against the reference loop?

    msr bench scoring [--rounds 4] [--adapter] [--gpu]

Random weights of 33 million parameters, about 1,290 tokens a prompt, 1,176 of them of the image.
Both sides have the same checkpoint: the reference loop (`reference_loop.py`) in float32, vLLM as a
merged model is served: in bfloat16, in float32 on a processor without it. In every round, one after
the other:

    reference     the loop on 12 new items
    cold          the engine on the same 12 items, of which the server has seen nothing
    engine_warm   the engine on them again, for users whose preference is new
    api_warm      `POST /recommend` of `msr serve`, items warm, for users who are new
    repeat        the last of these requests again: scores are cached

`--adapter` adds how the same weights do in float32 below a LoRA adapter that can be swapped.
`--gpu` needs one, and measures the 7B shape instead (`gpu.py`).
"""

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.support import gpu, paired_rounds
from benchmarks.support.paired_rounds import Claim, Rounds, add_options, comparison_table
from benchmarks.support.random_model import SHAPES, write_adapter, write_checkpoint
from benchmarks.support.reference_loop import ReferenceLoop
from benchmarks.support.runner import markdown
from benchmarks.support.served_model import ServedModel, serve
from benchmarks.support.synthetic_catalogue import draw_items, draw_preference
from benchmarks.support.synthetic_service import SyntheticService, serve_catalogue
from services.core.records import Item, ScoredCandidate
from services.core.scoring import NOT_CALIBRATED, score_candidates

NUM_CANDIDATES = 12
WARM_USERS = 4  # a round: a warm request is over in half a second
NUM_REPEATS = 20
BARS = {"engine_warm": 18.0, "api_warm": 12.0, "cold": 2.5, "repeat": 100.0}
HIT_RATE_BAR = 0.85
NAMES = {
    "engine_warm": "12 candidates, items warm, engine",
    "api_warm": "12 candidates, items warm, POST /recommend",
    "cold": "12 candidates, items cold, engine",
    "repeat": "the same request again, POST /recommend",
    "one_token": "(12 candidates, reference loop with 1 token instead of 30)",
    "adapter_cold": "(12 candidates, items cold, float32 LoRA)",
    "adapter_warm": "(12 candidates, items warm, float32 LoRA)",
}

QUICK = paired_rounds.QUICK


async def run(arguments: Sequence[str]) -> dict[str, Any]:
    """The ratios, both sides' seconds, the prefix hit rate, and how far vLLM moves a margin."""
    options = _options(arguments)
    if options.gpu:
        return await gpu.measure_scoring()
    rounds = Rounds("scoring", settle_seconds=options.settle_seconds)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_checkpoint(Path(folder) / "checkpoint", SHAPES[options.model])
        reference = ReferenceLoop(checkpoint)
        async with (
            serve(checkpoint) as model,
            serve_catalogue(
                model, num_items=NUM_CANDIDATES, num_users=1 + options.rounds * WARM_USERS
            ) as service,
        ):
            scoring = _Scoring(rounds, reference, model, service)
            await scoring.warm_up()
            for number in range(options.rounds):
                await scoring.run_round(number)
        claims = [Claim(name, "reference", bar) for name, bar in BARS.items()]
        claims.append(Claim("one_token", "reference"))
        if options.adapter:
            adapter = write_adapter(Path(folder) / "adapter", checkpoint)
            async with serve(checkpoint, adapter=adapter, dtype="float32") as model:
                await _run_adapter(rounds, model, options.rounds)
            claims += [Claim(f"adapter_{state}", "reference") for state in ("cold", "warm")]
    measured = {claim.side: rounds.judge(claim) for claim in claims}
    return {name: measured[name]["ratio"] for name in BARS} | {
        "prefix_hit_rate": round(scoring.hit_rate, 4),
        "prefix_hit_rate_bar": HIT_RATE_BAR,
        "largest_margin_difference": round(scoring.margin_difference, 4),
        "measured": measured,
    }


def table(figures: dict[str, Any]) -> str:
    """One row a claim, then what was checked beside them."""
    if "gpu" in figures:
        return gpu.table(figures)
    hit_rate, bar = figures["prefix_hit_rate"], figures["prefix_hit_rate_bar"]
    checks = markdown(
        ("check", "measured", "bar", "reached"),
        [
            (
                "prefix hit rate, items warm (cached / prompt tokens)",
                f"{hit_rate:.3f}",
                bar,
                "yes" if hit_rate >= bar else "NO",
            ),
            (
                "largest difference of margins, vLLM against the loop's float32",
                figures["largest_margin_difference"],
                "",
                "",
            ),
        ],
    )
    return f"{comparison_table(figures['measured'], NAMES)}\n\n{checks}"


class _Scoring:
    """Both sides, and what the rounds find besides seconds."""

    def __init__(
        self,
        rounds: Rounds,
        reference: ReferenceLoop,
        model: ServedModel,
        service: SyntheticService,
    ) -> None:
        self._rounds = rounds
        self._reference = reference
        self._model = model
        self._service = service
        self._users = iter(service.preference_of)
        self._hit_rates: list[float] = []
        self.margin_difference = 0.0

    @property
    def hit_rate(self) -> float:
        """Mean over the rounds' warm requests at the engine."""
        return mean(self._hit_rates)

    async def warm_up(self) -> None:
        """Every side works once untimed; the served items are warm after it."""
        # By the engine first: cold, they may take a slow machine longer than the API's deadline.
        await _score(self._model, "warm up", self._service.items)
        await self._service.recommend(next(self._users), NUM_CANDIDATES)
        await asyncio.to_thread(
            self._reference.score, draw_preference("warm up"), self._service.items[:6]
        )

    async def run_round(self, number: int) -> None:
        """Reference, cold, warm, API, repeat."""
        items = draw_items(f"round {number}", NUM_CANDIDATES)
        await self._compare(f"round {number}", items)
        before = await self._model.count_tokens()
        users = [f"round {number} user {k}" for k in range(WARM_USERS)]
        await self._rounds.time(
            "engine_warm", lambda: _score_in_turn(self._model, users, items), repeats=WARM_USERS
        )
        self._hit_rates.append((await self._model.count_tokens()).since(before).hit_rate)
        await self._request()

    async def _compare(self, user: str, items: Sequence[Item]) -> None:
        preference = draw_preference(user)
        expected = await self._rounds.time(
            "reference", lambda: asyncio.to_thread(self._reference.score, preference, items)
        )
        await self._rounds.time(
            "one_token",
            lambda: asyncio.to_thread(self._reference.score, preference, items, num_tokens=1),
        )
        scored = await self._rounds.time("cold", lambda: _score(self._model, user, items))
        differences = [
            abs(candidate.margin - margin)
            for candidate, margin in zip(scored, expected, strict=True)
        ]
        self.margin_difference = max(self.margin_difference, *differences)

    async def _request(self) -> None:
        users = [next(self._users) for _ in range(WARM_USERS)]

        async def request_all() -> None:
            for user_id in users:
                await self._service.recommend(user_id, NUM_CANDIDATES)

        async def repeat() -> None:
            for _ in range(NUM_REPEATS):
                answer = await self._service.recommend(users[-1], NUM_CANDIDATES)
                if answer.num_cached != NUM_CANDIDATES:
                    raise RuntimeError(f"only {answer.num_cached} scores were cached")

        await self._rounds.time("api_warm", request_all, repeats=WARM_USERS)
        await self._rounds.time("repeat", repeat, repeats=NUM_REPEATS)


async def _run_adapter(rounds: Rounds, model: ServedModel, num_rounds: int) -> None:
    await _score(model, "adapter warm up", draw_items("adapter warm up", 1))
    for number in range(num_rounds):
        items = draw_items(f"adapter round {number}", NUM_CANDIDATES)
        name = f"adapter round {number}"
        await rounds.time("adapter_cold", lambda: _score(model, name, items))  # noqa: B023
        await rounds.time("adapter_warm", lambda: _score(model, f"{name} again", items))  # noqa: B023


async def _score(model: ServedModel, user: str, items: Sequence[Item]) -> list[ScoredCandidate]:
    return await score_candidates(model.engine.score, draw_preference(user), items, NOT_CALIBRATED)


async def _score_in_turn(model: ServedModel, users: Sequence[str], items: Sequence[Item]) -> None:
    for user in users:
        await _score(model, user, items)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="msr bench scoring")
    add_options(parser, rounds=4)
    parser.add_argument("--adapter", action="store_true", help="add the adapter mode's rows")
    parser.add_argument("--gpu", action="store_true", help="measure the 7B shape on this GPU")
    return parser.parse_args(arguments)
