"""Scores candidates with the model by a deadline, as many as possible.

Looks up cached scores first, and sends prompts that can probably be answered in time
(`admission.py`). At the deadline unanswered prompts are cancelled; answered ones count, whatever
happened to the others.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

import structlog
from cachetools import LRUCache

from services.api.monitoring.engine_health import EngineWatch
from services.api.monitoring.metrics import Metrics
from services.api.recommend.admission import Admission
from services.api.recommend.item_cache import ItemCache
from services.core import errors
from services.core.records import ItemId, ScoredCandidate, UserId
from services.core.scoring import score_candidates
from services.core.wire.recommend import DegradedReason, Priority
from services.engines.contract import Scorer
from services.state.keys import score_key
from services.state.records import ItemRecord
from services.state.user_store import Store

log = structlog.get_logger(__name__)

# Without a preference the scores are the same for all users; the process keeps this many of them.
# The store keeps scores by user, for known users only.
NUM_COLD_SCORES = 20_000

# Saving new scores may take this long after the deadline.
SAVE_SECONDS = 0.025

# In order of importance: the first that applies to any candidate is the answer's reason.
_REASONS: tuple[tuple[type[errors.EngineError], DegradedReason], ...] = (
    (errors.EngineUnavailable, "engine-unavailable"),
    (errors.EngineOverloaded, "engine-overloaded"),
    (errors.EngineTimeout, "engine-timeout"),
    (errors.EngineRefused, "engine-refused"),
    (errors.EngineError, "engine-failed"),
)


@dataclass(frozen=True, slots=True)
class Scores:
    """Margins of the scored candidates, and why the others have none."""

    margins: Mapping[ItemId, float]
    num_cached: int = 0
    reason: DegradedReason | None = None


@dataclass(eq=False, slots=True)
class CandidateScorer:
    """Scores candidates through cache and engine."""

    store: Store
    items: ItemCache
    watch: EngineWatch
    metrics: Metrics
    # Of one request, how many prompts are in the engine at once.
    max_in_flight: int
    admission: Admission = field(default_factory=Admission, init=False)
    cold: LRUCache[str, float] = field(
        default_factory=lambda: LRUCache(NUM_COLD_SCORES), init=False
    )

    @property
    def num_under_way(self) -> int:
        """Prompts of requests that are in the engine now."""
        return self.admission.num_under_way

    async def score(
        self,
        user_id: UserId,
        preference: str,
        versions: Mapping[ItemId, str],
        *,
        by: Scorer,
        deadline: float,
        priority: Priority = "interactive",
    ) -> Scores:
        """Margins for these item versions, best candidate first, by `deadline` (on the event
        loop's clock).

        Raises StateError if the store fails; `Scores.reason` names an engine's failure.
        """
        try:
            async with asyncio.timeout_at(deadline):
                held = await self._look_up(user_id, preference, versions, by)
        except TimeoutError:
            return Scores({}, reason="deadline")
        missing = {each: version for each, version in versions.items() if each not in held}
        if not missing:
            return Scores(held, len(held))
        seconds_left = deadline - asyncio.get_running_loop().time()
        num_admitted = self.admission.num_admitted(len(missing), seconds_left, priority)
        num_shed = len(missing) - num_admitted
        if num_shed:
            self.metrics.requests_shed.labels(priority).inc()
            self.metrics.candidate_scores.labels("shed").inc(num_shed)
        admitted = dict(islice(missing.items(), num_admitted))
        answers, reason = await self._ask(preference, admitted, by, deadline)
        await self._save(user_id, preference, dict(answers.values()), deadline)
        margins = {item_id: margin for item_id, (_, margin) in answers.items()}
        return Scores({**held, **margins}, len(held), reason or ("shed" if num_shed else None))

    async def _look_up(
        self, user_id: UserId, preference: str, versions: Mapping[ItemId, str], by: Scorer
    ) -> dict[ItemId, float]:
        keys = {each: _key(by, preference, version) for each, version in versions.items()}
        held: Mapping[str, float] = self.cold
        if preference:
            held = await self.store.scores.load(user_id, list(keys.values()))
        margins = {each: held[key] for each, key in keys.items() if key in held}
        self.metrics.candidate_scores.labels("cached").inc(len(margins))
        return margins

    async def _ask(
        self, preference: str, versions: Mapping[ItemId, str], by: Scorer, deadline: float
    ) -> tuple[dict[ItemId, tuple[str, float]], DegradedReason | None]:
        """The cache keys and margins of the items that were answered, and why others were not."""
        if not versions:
            return {}, None
        gate = asyncio.Semaphore(self.max_in_flight)

        async def ask(item_id: ItemId) -> tuple[str, float] | None:
            # Load the image inside the gate: a request holds no more images than prompts.
            async with gate:
                try:
                    answer = await self._ask_about(preference, item_id, versions[item_id], by)
                except errors.EngineError:
                    asking.note_failure()
                    raise
                # None: deleted a moment ago
                asking.note_failure() if answer is None else asking.note_answer()
                return answer

        with self.admission.asking(len(versions)) as asking:
            tasks = {item_id: asyncio.create_task(ask(item_id)) for item_id in versions}
            try:
                remaining = deadline - asyncio.get_running_loop().time()
                done, late = await asyncio.wait(tasks.values(), timeout=max(0.0, remaining))
            finally:
                for task in tasks.values():
                    task.cancel()
        answers: dict[ItemId, tuple[str, float]] = {}
        failures: list[errors.EngineError] = []
        for item_id, task in tasks.items():
            if task not in done:
                continue
            try:
                answer = task.result()
            except errors.EngineError as error:
                failures.append(error)
            except asyncio.CancelledError:  # by the engine: prompts that we cancel are not done
                failures.append(errors.EngineUnavailable("the engine dropped the prompt"))
            else:
                if answer is not None:
                    answers[item_id] = answer
        self._note(len(answers), failures, num_late=len(late))
        return answers, _reason(failures, late=bool(late))

    async def _ask_about(
        self, preference: str, item_id: ItemId, version: str, by: Scorer
    ) -> tuple[str, float] | None:
        answer = await score_one(self.items, by, preference, item_id, version)
        if answer is None:
            return None
        found, scored = answer
        self.metrics.note_score(by.identity, scored.probability, has_preference=bool(preference))
        return _key(by, preference, found.version), scored.margin

    def _note(self, num_scored: int, failures: list[errors.EngineError], *, num_late: int) -> None:
        counts = self.metrics.candidate_scores
        counts.labels("scored").inc(num_scored)
        counts.labels("failed").inc(len(failures))
        counts.labels("late").inc(num_late)
        if failures:
            # These two need an operator: the deployment is wrong.
            wrong = isinstance(failures[0], errors.AnswerTokenMissing | errors.ModelUnusable)
            write = log.error if wrong else log.warning
            write("candidates_not_scored", num_failed=len(failures), error=str(failures[0]))
        if num_scored:
            self.watch.note(None)
        elif failures:
            self.watch.note(failures[0])

    async def _save(
        self, user_id: UserId, preference: str, margins: Mapping[str, float], deadline: float
    ) -> None:
        if not preference:
            self.cold.update(margins)
            return
        if not margins:
            return
        remaining = deadline - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(remaining, SAVE_SECONDS)):
                await self.store.scores.save(user_id, margins)
        except (errors.StateError, TimeoutError) as error:
            # This ranking is complete; the next request asks the model again.
            log.warning("scores_not_cached", num_scores=len(margins), error=str(error))


async def score_one(
    items: ItemCache, by: Scorer, preference: str, item_id: ItemId, version: str
) -> tuple[ItemRecord, ScoredCandidate] | None:
    """The item from cache or store, and its score by this scorer; None if it was deleted."""
    found = (await items.get({item_id: version})).get(item_id)
    if found is None:
        return None
    [scored] = await score_candidates(by.score, preference, [found.item], by.identity.calibration)
    return found, scored


def _key(by: Scorer, preference: str, item_version: str) -> str:
    # The key names model and adapter: without an adapter the margins are the base model's.
    identity = by.identity
    return score_key(preference, item_version, f"{identity.model}/{identity.adapter}")


def _reason(failures: list[errors.EngineError], *, late: bool) -> DegradedReason | None:
    for kind, reason in _REASONS:
        if any(isinstance(failure, kind) for failure in failures):
            return reason
    return "deadline" if late else None
