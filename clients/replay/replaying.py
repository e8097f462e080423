"""Send a recording at a fixed rate, without waiting for responses: an open loop.

If the server slows down, the rate stays: requests pile up and the latencies show it. The summary
also has how late requests were sent, which shows whether this program kept up. Nothing is sent
twice, so every error is counted.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from clients.python import AsyncMsrClient, ClientError, Retries
from clients.replay.figures import Figures
from clients.replay.reading import Row
from services.core import wire
from services.core.errors import InputError

_TELL_EVERY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How to replay. Impossible values raise InputError."""

    # Interactions per second, and interactions per request.
    rate: float = 100.0
    batch_size: int = 1
    # The share of requests that ask for recommendations, each for a user of the previous batch.
    recommend_share: float = 0.0
    offset: int = 0
    limit: int | None = None
    # Send no timestamps: the interactions happen now, and each replay adds them again.
    now: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.rate < float("inf"):
            raise InputError(f"the rate {self.rate} is not one; give interactions per second")
        if not 1 <= self.batch_size <= wire.MAX_INTERACTIONS:
            raise InputError(f"a batch has 1 to {wire.MAX_INTERACTIONS} interactions")
        if not 0 <= self.recommend_share < 1:
            raise InputError("the share of recommendations is at least 0 and less than 1")


def open_client(url: str, *, api_key: str | None, timeout_seconds: float) -> AsyncMsrClient:
    """A client without a bound on its connections. InputError for a key that cannot be one."""
    limits = httpx.Limits(
        max_connections=None, max_keepalive_connections=None, keepalive_expiry=2.0
    )
    try:
        return AsyncMsrClient(
            url,
            api_key=api_key,
            timeout_seconds=timeout_seconds,
            retries=Retries(max_tries=1),
            limits=limits,
        )
    except ValueError as error:
        raise InputError(str(error)) from error


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def replay(
    rows: Sequence[Row],
    client: AsyncMsrClient,
    plan: Plan,
    *,
    stop: asyncio.Event,
    tell: Callable[[str], None] = _to_stderr,
) -> dict[str, Any]:
    """Send the rows until all are sent or `stop` is set, wait for the last responses, and sum up.

    `next_offset` is where a later run continues: every row before it got a response.
    """
    end = None if plan.limit is None else plan.offset + plan.limit
    return await _Run(rows[:end], client, plan, stop, tell).to_its_end()


@dataclass(slots=True)
class _Run:
    rows: Sequence[Row]
    client: AsyncMsrClient
    plan: Plan
    stop: asyncio.Event
    tell: Callable[[str], None]
    figures: Figures = field(default_factory=Figures)
    num_under_way: int = 0
    # The first rows of the batches that wait for a response.
    open: set[int] = field(default_factory=set)

    async def to_its_end(self) -> dict[str, Any]:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            next_row = await self._send_all(group, started)
        return {
            **self.figures.summary(time.perf_counter() - started),
            "next_offset": min(self.open, default=next_row),
            "interrupted": self.stop.is_set(),
        }

    async def _send_all(self, group: asyncio.TaskGroup, started: float) -> int:
        """Send each batch when it is due; returns the first row that was not sent."""
        plan = self.plan
        num_owed, told_at = 0.0, started
        for first in range(plan.offset, len(self.rows), plan.batch_size):
            due = started + (first - plan.offset) / plan.rate
            if await self._is_stopped_before(due):
                return first
            batch = self.rows[first : first + plan.batch_size]
            group.create_task(self._at(due, self._interact(first, batch)))
            num_owed += plan.recommend_share / (1 - plan.recommend_share)
            num_asked = int(num_owed)
            num_owed -= num_asked
            for number in range(1, num_asked + 1):
                # Spread evenly until the next batch.
                due_then = due + number / (num_asked + 1) * plan.batch_size / plan.rate
                if await self._is_stopped_before(due_then):
                    return first + len(batch)
                group.create_task(self._at(due_then, self._recommend(batch[-1])))
            if time.perf_counter() - told_at > _TELL_EVERY_SECONDS:
                told_at = time.perf_counter()
                self._tell_progress(first, started)
        return len(self.rows)

    async def _is_stopped_before(self, due: float) -> bool:
        """Wait until then; returns whether `stop` was set."""
        wait = due - time.perf_counter()
        if wait <= 0:
            await asyncio.sleep(0)  # lets responses be read even if this program is late
            return self.stop.is_set()
        try:
            async with asyncio.timeout(wait):
                await self.stop.wait()
        except TimeoutError:
            return False
        return True

    async def _at(self, due: float, request: Coroutine[Any, Any, None]) -> None:
        """Send a request that is due; note how late it was sent, and its error."""
        self.figures.late_seconds.append(time.perf_counter() - due)
        self.num_under_way += 1
        try:
            await request
        except ClientError as error:
            self.figures.note_error(error)
        finally:
            self.num_under_way -= 1

    async def _interact(self, first: int, batch: Sequence[Row]) -> None:
        interactions = [
            wire.InteractionIn(
                user_id=row.user_id,
                item_id=row.item_id,
                timestamp_ms=None if self.plan.now else row.timestamp_ms,
            )
            for row in batch
        ]
        self.open.add(first)
        self.figures.num_sent += len(batch)
        started = time.perf_counter()
        answer = await self.client.interact(*interactions)
        self.figures.interact_seconds.append(time.perf_counter() - started)
        self.figures.note_taken(answer)
        self.open.discard(first)

    async def _recommend(self, row: Row) -> None:
        started = time.perf_counter()
        answer = await self.client.recommend(row.user_id)
        self.figures.recommend_seconds.append(time.perf_counter() - started)
        self.figures.note_ranking(answer)

    def _tell_progress(self, row: int, started: float) -> None:
        seconds = time.perf_counter() - started
        num_done = row - self.plan.offset
        left = (len(self.rows) - row) / self.plan.rate
        self.tell(
            f"{row:,} of {len(self.rows):,} sent, {num_done / seconds:,.1f} of "
            f"{self.plan.rate:,g} a second, {self.num_under_way} under way, "
            f"{self.figures.errors.total()} errors, {left / 60:,.0f} minutes left"
        )
