"""What users of an experiment's arms do with what was recommended to them.

It is counted beside the requests and never fails one: the counts are of a sample anyway, of what
was asked for while the experiment ran.
"""

import asyncio
from collections.abc import Iterable

import structlog

from services.api.adapters.active_adapters import LiveAdapters
from services.api.monitoring.adapter_metrics import AdapterMetrics
from services.core import wire
from services.core.errors import StateError
from services.core.records import Interaction, ItemId, UserId
from services.state.exposures import ExposureLog

log = structlog.get_logger(__name__)

# Longer is not waited for Redis.
WAIT_SECONDS = 0.05
MAX_NOTING = 256


class Outcomes:
    """Remembers what was recommended, and counts what was taken of it."""

    def __init__(
        self, exposures: ExposureLog, adapters: LiveAdapters, metrics: AdapterMetrics
    ) -> None:
        """Idle while no experiment runs."""
        self._noting: set[asyncio.Task[None]] = set()
        self._exposures = exposures
        self._adapters = adapters
        self._metrics = metrics

    def note(self, answer: wire.RecommendResponse) -> None:
        """Remember what was recommended; the answer does not wait for it."""
        if answer.experiment is None or answer.arm is None:
            return
        if len(self._noting) >= MAX_NOTING:
            log.warning("recommendation_not_remembered", error="too many wait for Redis")
            return
        task = asyncio.create_task(self._note(answer, answer.experiment, answer.arm))
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)

    async def _note(self, answer: wire.RecommendResponse, experiment: str, arm: str) -> None:
        items = [ItemId(item.item_id) for item in answer.items]
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._exposures.note(UserId(answer.user_id), experiment, arm, items)
        except (StateError, TimeoutError) as error:
            log.warning("recommendation_not_remembered", error=str(error))

    async def count(self, accepted: Iterable[Interaction]) -> None:
        """Count which of these interactions are with what was recommended."""
        if self._adapters.current.choice.experiment is None:
            return
        taken: dict[UserId, list[ItemId]] = {}
        for each in accepted:
            taken.setdefault(each.user_id, []).append(each.item_id)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                arms = await self._exposures.take(taken)
        except (StateError, TimeoutError) as error:
            log.warning("outcomes_not_counted", error=str(error))
            return
        for experiment, arm in arms:
            self._metrics.outcomes.labels(experiment, arm).inc()
