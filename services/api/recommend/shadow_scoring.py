"""Shadow scoring: scores a sample of answered requests again by another adapter, and compares.

A sampled request waits in a short queue. The shadow scores it one prompt at a time, and only while
this process scores for no request. What waits too long or does not fit is dropped and counted, so
under load the shadow stops first.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import structlog

from services.api.adapters.active_adapters import Assigned, LiveAdapters
from services.api.monitoring.metrics import Metrics
from services.api.recommend.item_cache import ItemCache
from services.api.recommend.model_scoring import score_one
from services.core.records import ItemId
from services.core.scoring import Calibration

log = structlog.get_logger(__name__)

MAX_WAITING = 16
MAX_CANDIDATES = 50
# A sample that waits longer than this for an idle engine is dropped.
PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Answered:
    """A request's answer: margins by the adapter `by`."""

    preference: str
    versions: Mapping[ItemId, str]
    margins: Mapping[ItemId, float]
    by: str
    calibration: Calibration
    answered_at: float


@dataclass(eq=False, slots=True)
class ShadowScorer:
    """Scores samples by the chosen shadow adapter; `waiting` holds them, oldest first.

    `is_busy()`: whether a request waits for the model now.
    """

    adapters: LiveAdapters
    items: ItemCache
    metrics: Metrics
    is_busy: Callable[[], bool]
    waiting: deque[Answered] = field(default_factory=deque, init=False)
    arrived: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def offer(
        self,
        preference: str,
        versions: Mapping[ItemId, str],
        margins: Mapping[ItemId, float],
        answered_by: Assigned,
    ) -> None:
        """Queue an answer if it falls into the sample. Never waits."""
        shadow = self.adapters.choice.shadow
        if shadow is None or len(margins) < 2 or random.random() >= shadow.share:
            return
        kept = dict(list(margins.items())[:MAX_CANDIDATES])
        calibration = answered_by.scorer.identity.calibration
        now = asyncio.get_running_loop().time()
        if len(self.waiting) == MAX_WAITING:
            self.waiting.popleft()
            self.metrics.shadow_requests.labels(shadow.adapter.name, "dropped").inc()
        self.waiting.append(
            Answered(preference, versions, kept, answered_by.name, calibration, now)
        )
        self.arrived.set()

    async def run(self) -> None:
        """Score queued answers until cancelled."""
        while True:
            await self.arrived.wait()
            self.arrived.clear()
            while self.waiting:
                await self.score(self.waiting.popleft())

    async def score(self, answered: Answered) -> None:
        """Score one answer again and compare."""
        with self.adapters.lease_shadow() as shadow:
            if shadow is None:
                return
            try:
                outcome = await self._compare(answered, shadow)
            except Exception as error:  # any error costs this comparison only
                reason = f"{type(error).__name__}: {error}"
                log.warning("shadow_not_scored", adapter=shadow.name, error=reason)
                outcome = "failed"
            self.metrics.shadow_requests.labels(shadow.name, outcome).inc()

    async def _compare(self, answered: Answered, shadow: Assigned) -> str:
        calibration = shadow.scorer.identity.calibration
        ours: list[float] = []
        theirs: list[float] = []
        for item_id, margin in answered.margins.items():
            if not await self._idle(answered.answered_at + PATIENCE_SECONDS):
                return "dropped"
            version = answered.versions[item_id]
            answer = await score_one(
                self.items, shadow.scorer, answered.preference, item_id, version
            )
            if answer is None:  # deleted meanwhile
                continue
            ours.append(margin)
            theirs.append(answer[1].margin)
        who = (shadow.name, answered.by)
        differences = self.metrics.shadow_difference.labels(*who)
        for our, their in zip(ours, theirs, strict=True):
            difference = calibration.probability(their) - answered.calibration.probability(our)
            differences.observe(difference)
        agreement = pair_agreement(ours, theirs)
        if agreement is not None:
            self.metrics.shadow_agreement.labels(*who).observe(agreement)
        return "compared"

    async def _idle(self, until: float) -> bool:
        """Wait until no request is being scored; False if that does not happen in time."""
        clock = asyncio.get_running_loop().time
        while self.is_busy():
            if clock() > until:
                return False
            await asyncio.sleep(PAUSE_SECONDS)
        return clock() <= until


def pair_agreement(ours: list[float], theirs: list[float]) -> float | None:
    """The share of pairs that both order alike, without ties; None if no pair is left."""
    ups = [np.sign(np.subtract.outer(values, values)) for values in (ours, theirs)]
    product = np.triu(ups[0] * ups[1], k=1)
    num_pairs = int(np.count_nonzero(product))
    return float(np.count_nonzero(product > 0)) / num_pairs if num_pairs else None
