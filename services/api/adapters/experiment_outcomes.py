"""Counts, for each arm of an experiment, the interactions with items that were recommended.

A background task remembers what was recommended. `POST /interactions` counts what was taken, and
waits for Redis at most WAIT_SECONDS for it. Neither fails a request: an outcome that is lost makes
a count smaller, in all arms alike.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from services.api.adapters.active_adapters import LiveAdapters
from services.api.monitoring.metrics import Metrics
from services.core import wire
from services.core.errors import StateError
from services.core.records import Interaction, ItemId, UserId
from services.state.exposures import ExposureLog

log = structlog.get_logger(__name__)

WAIT_SECONDS = 0.05
MAX_NOTING = 256


@dataclass(eq=False, slots=True)
class Outcomes:
    """Remembers recommended items and counts interactions with them, while an experiment runs."""

    exposures: ExposureLog
    adapters: LiveAdapters
    metrics: Metrics
    noting: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    def note(self, answer: wire.RecommendResponse) -> None:
        """Remember the recommended items, in the background."""
        if answer.experiment is None or answer.arm is None:
            return
        if len(self.noting) >= MAX_NOTING:
            log.warning("recommendation_not_remembered", error="too many writes wait for Redis")
            return
        task = asyncio.create_task(self._note(answer, answer.experiment, answer.arm))
        self.noting.add(task)
        task.add_done_callback(self.noting.discard)

    async def _note(self, answer: wire.RecommendResponse, experiment: str, arm: str) -> None:
        items = [ItemId(item.item_id) for item in answer.items]
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self.exposures.note(UserId(answer.user_id), experiment, arm, items)
        except (StateError, TimeoutError) as error:
            log.warning("recommendation_not_remembered", error=str(error))

    async def count(self, accepted: Iterable[Interaction]) -> None:
        """Count those of these interactions whose item had been recommended to the user."""
        if self.adapters.choice.experiment is None:
            return
        taken: dict[UserId, list[ItemId]] = {}
        for each in accepted:
            taken.setdefault(each.user_id, []).append(each.item_id)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                arms = await self.exposures.take(taken)
        except (StateError, TimeoutError) as error:
            log.warning("outcomes_not_counted", error=str(error))
            return
        for experiment, arm in arms:
            self.metrics.arm_outcomes.labels(experiment, arm).inc()
