"""The cascade: which items, in which order, by a deadline.

    candidates (named, or retrieved) -> cheap order -> the best go to the model -> final order

One rule merges the two orders (`ordering.py`): an item without a model score keeps its cheap place,
and the scored items are sorted among the remaining places. So a late model costs quality, never an
answer, and mode `mllm` is the same with every candidate sent.

An item that was put online after the rankers were fitted is ranked if the caller names it.
Retrieval proposes it after `msr prepare-catalogue` and `msr fit-retrieval` have run again.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import structlog

from services.api.adapters.active_adapters import Assigned, LiveAdapters
from services.api.limits import Limits
from services.api.monitoring.metrics import Metrics
from services.api.monitoring.text_caveats import TextCaveats
from services.api.recommend.model_scoring import CandidateScorer, Scores
from services.api.recommend.ordering import Ordered, Ordering
from services.api.recommend.ordering_reload import LiveOrdering
from services.api.recommend.shadow_scoring import ShadowScorer
from services.core import wire
from services.core.backoff import growing_pause
from services.core.errors import StateUnavailable
from services.core.records import ItemId, UserId
from services.core.recurrence import PreferenceState
from services.retrieval.cheap_rankers import CheapScores
from services.state.records import ItemRecord, UserRecord
from services.state.user_store import Store
from services.telemetry import request_context, tracing

log = structlog.get_logger(__name__)

# The share of the time that is reserved for building and sending the answer. The stages (state,
# candidates, scoring) share the rest: each may use what the earlier ones left.
ANSWER_SHARE = 0.1
MOST_ANSWER_SECONDS = 0.05
# Without the store there is no ranking, so it may take this long even if the deadline is shorter.
STORE_SECONDS = 0.25
# Of the time to the deadline, how long a preference that is being updated is waited for: the rest
# is the model's. The store is asked again and again, since the worker may be another machine.
WAITING_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Candidates:
    """The candidates, best first by the cheap rankers; their versions; the rejected ones."""

    ordered: Ordered
    versions: Mapping[ItemId, str]
    rejected: Sequence[wire.RejectedCandidate] = ()


@dataclass(frozen=True, slots=True)
class Cascade:
    """Ranks; holds no state of its own between requests, only parts of the application."""

    store: Store
    live: LiveOrdering
    adapters: LiveAdapters
    scorer: CandidateScorer
    shadow: ShadowScorer
    caveats: TextCaveats
    limits: Limits
    metrics: Metrics

    async def recommend(self, request: wire.RecommendRequest) -> wire.RecommendResponse:
        """Rank by the request's deadline. If the model fails or is late, the answer is `degraded`.

        The same adapter scores all candidates, even if another is activated meanwhile. Raises
        StateUnavailable if the store does not answer in time.
        """
        with self.adapters.lease_for_user(UserId(request.user_id)) as assigned:
            return await self._recommend(request, assigned)

    async def _recommend(
        self, request: wire.RecommendRequest, assigned: Assigned
    ) -> wire.RecommendResponse:
        clock = asyncio.get_running_loop().time
        started = clock()
        seconds = request.timeout_seconds or self.limits.timeout_seconds
        deadline = started + seconds - min(ANSWER_SHARE * seconds, MOST_ANSWER_SECONDS)
        store_deadline = max(deadline, started + STORE_SECONDS)
        async with _store_answers_by(store_deadline):
            user = await self._load_user(UserId(request.user_id))
            if request.at_least_version is not None:
                until = started + WAITING_SHARE * (deadline - started)
                user = await self._wait_for(user, request.at_least_version, until)
            after_state = clock()
            # Newly published rankers are used from the next request on.
            ordering = self.live.by(assigned.scorer.identity)
            candidates = await self._candidates(request, user, ordering)
        after_candidates = clock()
        scores = await self._score(request, user, candidates, assigned, deadline)
        ended = clock()
        timings = wire.Timings(
            state_seconds=after_state - started,
            candidates_seconds=after_candidates - after_state,
            scoring_seconds=ended - after_candidates,
            total_seconds=ended - started,
        )
        self._note(request.mode, scores, timings, assigned)
        self.shadow.offer(user.preference, candidates.versions, scores.margins, assigned)
        return wire.RecommendResponse(
            user_id=request.user_id,
            mode=request.mode,
            items=ordering.places(candidates.ordered, scores.margins, request.mode, request.k),
            cold=not user.preference,
            history_version=user.version,
            preference_version=user.preference_version,
            preference_behind=user.preference_version < (request.at_least_version or 0),
            adapter=assigned.name if request.mode != "cheap" else None,
            experiment=assigned.experiment,
            arm=assigned.arm,
            degraded=scores.reason is not None,
            reason=scores.reason,
            caveats=self.caveats.of_answer(user, request.mode),
            num_candidates=len(candidates.ordered.candidates),
            num_scored=len(scores.margins),
            num_cached=scores.num_cached,
            rejected=list(candidates.rejected),
            timings=timings,
        )

    @tracing.traced("state")
    async def _load_user(self, user_id: UserId) -> UserRecord:
        user = await self.store.load_user(user_id) or _unknown(user_id)
        if user.history and not user.preference_version:
            # No preference yet, though there is a history: request one, and rank without it.
            await self.store.request_update(user_id, origin=str(request_context.current()))
        await self.caveats.queue_if_due(user, origin=str(request_context.current()))
        return user

    @tracing.traced("wait for the update")
    async def _wait_for(self, user: UserRecord, version: int, until: float) -> UserRecord:
        """The user as soon as the preference covers this version, or at the latest at `until`.

        Does not wait for a version that the history has not reached.
        """
        clock = asyncio.get_running_loop().time
        num_looks = 0
        while user.preference_version < version <= user.version:
            num_looks += 1
            pause = growing_pause(num_looks, first_seconds=0.01, longest_seconds=0.1)
            if clock() + pause > until:
                break
            await asyncio.sleep(pause)
            if await self.store.load_preference_version(user.user_id) >= version:
                user = await self.store.load_user(user.user_id) or _unknown(user.user_id)
        outcome = "behind" if user.preference_version < version else "reached"
        self.metrics.version_waits.labels(outcome).inc()
        return user

    # --- candidates ------------------------------------------------------------------------------

    @tracing.traced("candidates")
    async def _candidates(
        self, request: wire.RecommendRequest, user: UserRecord, ordering: Ordering
    ) -> Candidates:
        history = user.item_ids
        seen = frozenset(history) if request.exclude_seen else frozenset()
        titles = await self._titles_of_new(ordering, history)
        if request.candidates is None:
            return await self._retrieve(ordering, history, titles, seen, self._num_wanted(request))
        named = [ItemId(each) for each in request.candidates]
        return await self._judge(ordering, history, titles, seen, named)

    async def _titles_of_new(
        self, ordering: Ordering, history: Sequence[ItemId]
    ) -> dict[ItemId, str]:
        """Titles of the history's items that the rankers were fitted without."""
        new = ordering.new_items(history)
        records = await self._load_items(new) if new else {}
        return {item_id: record.item.title for item_id, record in records.items()}

    def _num_wanted(self, request: wire.RecommendRequest) -> int:
        if request.mode == "cheap":
            return request.k
        return max(request.k, request.num_scored or self.limits.num_scored)

    async def _retrieve(
        self,
        ordering: Ordering,
        history: Sequence[ItemId],
        titles: Mapping[ItemId, str],
        seen: Collection[ItemId],
        num_wanted: int,
    ) -> Candidates:
        """Retrieve until enough items are found that are still in the store."""
        kept: list[CheapScores] = []
        versions: dict[ItemId, str] = {}
        excluded = set(seen)
        limit = num_wanted
        while True:
            # In a thread, for small catalogues too: retrieval takes 1 ms for 480 items, 2 ms for
            # 9,500, and the change of thread 0.04 ms.
            found = await asyncio.to_thread(
                ordering.retrieve, history, titles, limit=limit, exclude=frozenset(excluded)
            )
            records = await self._load_items([each.item_id for each in found.candidates])
            kept += [each for each in found.candidates if each.item_id in records]
            versions |= {item_id: record.version for item_id, record in records.items()}
            if len(kept) >= num_wanted or not found.candidates:
                return Candidates(replace(found, candidates=kept[:num_wanted]), versions)
            excluded.update(each.item_id for each in found.candidates)
            limit *= 2  # many items were deleted: take larger steps

    async def _judge(
        self,
        ordering: Ordering,
        history: Sequence[ItemId],
        titles: Mapping[ItemId, str],
        seen: Collection[ItemId],
        named: Sequence[ItemId],
    ) -> Candidates:
        """Order the caller's candidates; unknown and seen ones are rejected."""
        unique = list(dict.fromkeys(named))
        records = await self._load_items(unique)
        ranked: list[ItemId] = []
        rejected: list[wire.RejectedCandidate] = []
        for item_id in unique:
            if item_id not in records:
                rejected.append(wire.RejectedCandidate(item_id=item_id, reason="unknown-item"))
            elif item_id in seen:
                rejected.append(wire.RejectedCandidate(item_id=item_id, reason="seen"))
            else:
                ranked.append(item_id)
        new = {item_id: records[item_id].item.title for item_id in ordering.new_items(ranked)}
        ordered = await asyncio.to_thread(ordering.judge, history, ranked, {**titles, **new})
        versions = {item_id: records[item_id].version for item_id in ranked}
        return Candidates(ordered, versions, rejected)

    async def _load_items(self, item_ids: Sequence[ItemId]) -> dict[ItemId, ItemRecord]:
        return await self.store.items.load_items(item_ids, images=False)

    # --- the model -------------------------------------------------------------------------------

    @tracing.traced("scoring")
    async def _score(
        self,
        request: wire.RecommendRequest,
        user: UserRecord,
        candidates: Candidates,
        assigned: Assigned,
        deadline: float,
    ) -> Scores:
        num_scored = {
            "cheap": 0,
            "mllm": len(candidates.ordered.candidates),
            "cascade": request.num_scored or self.limits.num_scored,
        }[request.mode]
        sent = [each.item_id for each in candidates.ordered.candidates[:num_scored]]
        if not sent:
            return Scores({})
        versions = {item_id: candidates.versions[item_id] for item_id in sent}
        return await self.scorer.score(
            user.user_id,
            user.preference,
            versions,
            by=assigned.scorer,
            deadline=deadline,
            priority=request.priority,
        )

    def _note(
        self, mode: wire.Mode, scores: Scores, timings: wire.Timings, assigned: Assigned
    ) -> None:
        if mode != "cheap":
            who = (assigned.name, assigned.experiment or "", assigned.arm or "")
            degraded = str(scores.reason is not None).lower()
            self.metrics.adapter_recommendations.labels(*who, degraded).inc()
            calibration = assigned.scorer.identity.calibration
            probabilities = self.metrics.adapter_probability.labels(*who)
            for margin in scores.margins.values():
                probabilities.observe(calibration.probability(margin))
        self.metrics.recommendations.labels(mode, scores.reason or "").inc()
        stages = self.metrics.stage_seconds
        stages.labels("state").observe(timings.state_seconds)
        stages.labels("candidates").observe(timings.candidates_seconds)
        stages.labels("scoring").observe(timings.scoring_seconds)
        if scores.reason is not None:
            log.warning("recommendation_degraded", mode=mode, reason=scores.reason)


def _unknown(user_id: UserId) -> UserRecord:
    """A user without interactions."""
    return UserRecord(
        user_id,
        history=(),
        state=PreferenceState(),
        preference="",
        version=0,
        preference_version=0,
        revision=0,
    )


@asynccontextmanager
async def _store_answers_by(deadline: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError as error:
        raise StateUnavailable("Redis does not answer; it is frozen or overloaded") from error
