"""One chaos run: interactions are delivered while processes are killed and the network is cut.

Strikes and deliveries keep pace: a strike begins a random moment after its batch does, and no
sender is more than MAX_LEAD_BATCHES ahead of a strike that is due. Strikes of different kinds
overlap, so a worker is also killed while Redis is down. Whatever a sender got no 202 for it sends
again, with the same event ids.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx

from benchmarks.faults.consistency_check import Inconsistencies, check_consistency
from benchmarks.faults.deliveries import as_json, draw_deliveries
from benchmarks.faults.network import Network
from benchmarks.faults.supervised_process import (
    SupervisedProcess,
    api,
    ended_after,
    free_port,
    print_last_words,
    redis_server,
    worker,
)
from benchmarks.faults.world import ITEM_IDS, prepare
from services.core.records import Interaction
from services.state.user_store import Store
from services.state.work_queue import load_backlog

NUM_WORKERS = 2
NUM_SENDERS = 4
MAX_LEAD_BATCHES = 3
# A strike comes up to so long after its batch began: while it is taken in, or during the update.
REQUEST_SECONDS = 0.04
UPDATE_SECONDS = 0.25
CUT_SECONDS = (0.2, 3.0)  # around the timeout of Redis' client, 2 s
SEND_AGAIN_SECONDS = 0.1
SEND_TIMEOUT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is sent, and how often what fails."""

    interactions: int
    users: int
    kills: int  # of workers
    restarts: int  # of Redis: SIGKILL, then a start on the same data
    api_kills: int
    cuts: int
    batch_size: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The inconsistencies, and the figures that say what happened on the way."""

    inconsistencies: Inconsistencies
    figures: dict[str, Any]


async def run(plan: Plan, folder: Path) -> Outcome:
    """Run the plan with everything that it needs in an empty folder; leaves no process behind."""
    draw = Random(plan.seed)
    deliveries = draw_deliveries(plan.interactions, plan.users, plan.batch_size, draw)
    data = await prepare(folder)
    port = free_port()
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(Network(port))
        redis = redis_server(folder, port)
        server = api(data, network.url, folder)
        workers = [worker(number, network.url, folder) for number in range(NUM_WORKERS)]
        programs = [redis, server, *workers]
        stack.enter_context(ended_after(programs))
        await redis.start()
        await server.start()
        await asyncio.gather(*(each.start() for each in workers))
        sender = _Sender(server, deliveries.batches)
        strikes = _Strikes(plan, len(deliveries.batches), draw)
        async with asyncio.TaskGroup() as tasks:
            for strike in (
                strikes.plan(
                    plan.kills, UPDATE_SECONDS, lambda draw: draw.choice(workers).restart()
                ),
                strikes.plan(plan.restarts, REQUEST_SECONDS, lambda _: redis.restart()),
                strikes.plan(plan.api_kills, REQUEST_SECONDS, lambda _: server.restart()),
                strikes.plan(plan.cuts, REQUEST_SECONDS, lambda draw: _cut(network, draw)),
            ):
                tasks.create_task(strike)
            tasks.create_task(sender.send_all(strikes))
        store = await Store.open(network.redis_url)
        stack.push_async_callback(store.close)
        items = await store.items.load_history_items(ITEM_IDS)
        inconsistencies = await check_consistency(store, deliveries.interactions, items)
        num_dead = (await load_backlog(store.connection)).num_dead
        for program in (server, *workers):
            await program.stop()
        if not inconsistencies.is_empty:
            inconsistencies.print_faults()
            print_last_words(programs)
    figures = {
        "interactions": len(deliveries.interactions),
        "lost": len(inconsistencies.lost),
        "applied_twice": len(inconsistencies.applied_twice),
        "preferences_differ": len(inconsistencies.preferences_differ),
        "kills": sum(each.num_kills for each in workers),
        "redis_restarts": redis.num_kills,
        "api_kills": server.num_kills,
        "network_cuts": plan.cuts,
        "users": plan.users,
        "delivered": sum(map(len, deliveries.batches)),
        "answered_as_duplicates": sender.num_duplicates,
        "batches_sent_again": sender.num_again,
        "answers": dict(sorted(sender.answers.items())),
        # What kills left behind and another worker took over: kills hit work.
        "updates_taken_over": sum(each.log_counts("work_claimed") for each in workers),
        "updates_given_up": num_dead,
    }
    return Outcome(inconsistencies, figures)


# --- what fails ----------------------------------------------------------------------------------


async def _cut(network: Network, draw: Random) -> None:
    network.cut(silently=draw.random() < 0.5)
    await asyncio.sleep(draw.uniform(*CUT_SECONDS))
    network.heal()


Strike = Callable[[Random], Awaitable[None]]


@dataclass(slots=True)
class _Moment:
    batch: int
    delay_seconds: float
    over: asyncio.Event = field(default_factory=asyncio.Event)


class _Strikes:
    """When what fails, counted in batches."""

    def __init__(self, plan: Plan, num_batches: int, draw: Random) -> None:
        self._num_batches = num_batches
        self._draw = draw
        self._planned: list[_Moment] = []
        self._begun = [asyncio.Event() for _ in range(num_batches)]

    async def begin(self, batch: int) -> None:
        """A sender is about to send this batch; returns when it may."""
        self._begun[batch].set()
        due = [each for each in self._planned if each.batch <= batch - MAX_LEAD_BATCHES]
        for moment in due:
            await moment.over.wait()

    def plan(self, number: int, latest_seconds: float, strike: Strike) -> Coroutine[Any, Any, None]:
        """Plan so many strikes of one kind now; the result carries them out, one after another."""
        # Its own, so that what is drawn does not depend on which kind strikes first.
        draw = Random(self._draw.getrandbits(64))
        # The last of each kind comes with the last batch: nothing that arrives later mends it.
        batches = sorted(draw.choices(range(self._num_batches), k=max(0, number - 1)))
        batches += [self._num_batches - 1] * min(1, number)
        moments = [_Moment(batch, draw.uniform(0, latest_seconds)) for batch in batches]
        self._planned += moments
        return self._carry_out(moments, strike, draw)

    async def _carry_out(self, moments: Sequence[_Moment], strike: Strike, draw: Random) -> None:
        for moment in moments:
            await self._begun[moment.batch].wait()
            await asyncio.sleep(moment.delay_seconds)
            await strike(draw)
            moment.over.set()


# --- who sends -----------------------------------------------------------------------------------


class _Sender:
    """Sends batches, several at once, each until it is acknowledged."""

    def __init__(self, server: SupervisedProcess, batches: Sequence[Sequence[Interaction]]) -> None:
        self.num_again = self.num_duplicates = 0
        self.answers: Counter[str] = Counter()
        self._server = server
        self._batches = batches

    async def send_all(self, strikes: _Strikes) -> None:
        """Return once everything is acknowledged."""
        numbers = iter(range(len(self._batches)))

        async def send_in_turn(http: httpx.AsyncClient) -> None:
            for number in numbers:
                await strikes.begin(number)
                await self._send(http, self._batches[number])

        async with (
            httpx.AsyncClient(timeout=SEND_TIMEOUT_SECONDS) as http,
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(NUM_SENDERS):
                tasks.create_task(send_in_turn(http))

    async def _send(self, http: httpx.AsyncClient, batch: Sequence[Interaction]) -> None:
        body = as_json(batch)
        while True:
            try:
                response = await http.post(f"{self._server.said}/interactions", json=body)
            except httpx.TransportError as error:
                self.answers[type(error).__name__] += 1
            else:
                self.answers[str(response.status_code)] += 1
                if response.status_code == 202:
                    break
                if response.status_code < 500 and response.status_code != 429:
                    raise RuntimeError(f"a batch was refused: {response.text}")
            self.num_again += 1
            await asyncio.sleep(SEND_AGAIN_SECONDS)
        answer = response.json()
        if answer["rejected"]:
            raise RuntimeError(f"interactions were rejected: {answer['rejected']}")
        self.num_duplicates += answer["duplicates"]
