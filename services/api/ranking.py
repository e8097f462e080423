"""The cascade: which items, in which order, and what each ranker said of them.

    candidates (the caller's, or retrieved) -> cheap order -> the best go to the model -> by margin

One rule merges the two orders: an item without a margin keeps the place that the cheap rankers gave
it, and the items with one are sorted by margin among the places left. So the unscored rest stays
behind the scored head, a late model costs quality and never an answer, and `mllm` mode is the same
with every candidate sent.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import structlog

from services.api.limits import Limits
from services.api.metrics import Metrics
from services.api.scorer import CandidateScorer, Scores
from services.core import wire
from services.core.errors import StateUnavailable
from services.core.records import ItemId, UserId
from services.core.scoring import yes_probability
from services.retrieval.rankers import CheapRankers, CheapScores
from services.state.records import UserRecord
from services.state.store import Store

log = structlog.get_logger(__name__)

T = TypeVar("T")

# Without the store there is no ranking at all, so it may take this long past a short deadline.
STORE_SECONDS = 1.0


def merge_by_margin(cheap_order: Sequence[T], margins: Mapping[T, float]) -> list[T]:
    """`cheap_order` (best first) with the items that have a margin sorted among their own places.

    Higher margins come first; equal ones keep their cheap order.
    """
    by_margin = iter(
        sorted((each for each in cheap_order if each in margins), key=lambda each: -margins[each])
    )
    return [next(by_margin) if each in margins else each for each in cheap_order]


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is ranked: cheap scores best first, the items' versions, and what was left out."""

    ordered: Sequence[CheapScores]
    versions: Mapping[ItemId, str]
    rejected: Sequence[wire.RejectedCandidate] = ()


class Cascade:
    """Ranks for one request at a time; holds no state of its own beyond its parts."""

    def __init__(
        self,
        store: Store,
        rankers: CheapRankers,
        scorer: CandidateScorer,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        """The parts are shared with the rest of the application."""
        self._store = store
        self._rankers = rankers
        self._scorer = scorer
        self._limits = limits
        self._metrics = metrics

    async def recommend(self, request: wire.RecommendRequest) -> wire.RecommendResponse:
        """Rank by the request's deadline. A model that fails or is late is told as `degraded`.

        Raises StateUnavailable if the store does not answer in time.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        deadline = started + (request.timeout_seconds or self._limits.timeout_seconds)
        store_deadline = max(deadline, started + STORE_SECONDS)
        user_id = UserId(request.user_id)
        async with _store_answers_by(store_deadline):
            user = await self._load_user(user_id)
        after_state = clock()
        async with _store_answers_by(store_deadline):
            candidates = await self._candidates(request, user)
        after_candidates = clock()
        scores = await self._score(request, user_id, user, candidates, deadline)
        ended = clock()
        timings = wire.Timings(
            state_seconds=after_state - started,
            candidates_seconds=after_candidates - after_state,
            scoring_seconds=ended - after_candidates,
            total_seconds=ended - started,
        )
        self._note(request.mode, scores, timings)
        return wire.RecommendResponse(
            user_id=request.user_id,
            mode=request.mode,
            items=_places(candidates.ordered, scores.margins)[: request.k],
            cold=user is None or not user.preference,
            history_version=user.version if user else 0,
            preference_version=user.folded_version if user else 0,
            degraded=scores.reason is not None,
            reason=scores.reason,
            num_candidates=len(candidates.ordered),
            num_scored=len(scores.margins),
            num_cached=scores.num_cached,
            rejected=list(candidates.rejected),
            timings=timings,
        )

    async def _load_user(self, user_id: UserId) -> UserRecord | None:
        user = await self._store.load_user(user_id)
        if user is not None and user.history and not user.folded_version:
            # Never folded, though there is something to fold: ask, and rank with what there is.
            await self._store.request_fold(user_id)
        return user

    # --- candidates ------------------------------------------------------------------------------

    async def _candidates(
        self, request: wire.RecommendRequest, user: UserRecord | None
    ) -> Candidates:
        history = user.item_ids if user else ()
        seen = frozenset(history) if request.exclude_seen else frozenset()
        if request.candidates is None:
            return await self._retrieve(history, seen, self._num_wanted(request))
        return await self._judge(history, seen, [ItemId(each) for each in request.candidates])

    def _num_wanted(self, request: wire.RecommendRequest) -> int:
        if request.mode == "cheap":
            return request.k
        return max(request.k, request.num_scored or self._limits.num_scored)

    async def _retrieve(
        self, history: Sequence[ItemId], seen: Collection[ItemId], num_wanted: int
    ) -> Candidates:
        """Retrieve until enough items are found that the store still has."""
        kept: list[CheapScores] = []
        versions: dict[ItemId, str] = {}
        excluded = set(seen)
        limit = num_wanted
        while len(kept) < num_wanted:
            found = self._rankers.retrieve(history, limit=limit, exclude=excluded)
            if not found:
                break
            held = await self._load_versions([each.item_id for each in found])
            kept += [each for each in found if each.item_id in held]
            versions.update(held)
            excluded.update(each.item_id for each in found)
            limit *= 2  # much of the catalogue was deleted: go down it faster
        return Candidates(kept[:num_wanted], versions)

    async def _judge(
        self, history: Sequence[ItemId], seen: Collection[ItemId], named: Sequence[ItemId]
    ) -> Candidates:
        """Order the caller's candidates; the unknown and the seen are named, not ranked."""
        unique = list(dict.fromkeys(named))
        versions = await self._load_versions(unique)
        ranked: list[ItemId] = []
        rejected: list[wire.RejectedCandidate] = []
        for item_id in unique:
            if item_id not in versions:
                rejected.append(wire.RejectedCandidate(item_id=item_id, reason="unknown-item"))
            elif item_id in seen:
                rejected.append(wire.RejectedCandidate(item_id=item_id, reason="seen"))
            else:
                ranked.append(item_id)
        ordered = sorted(self._rankers.score(history, ranked), key=lambda each: each.order_key)
        return Candidates(ordered, versions, rejected)

    async def _load_versions(self, item_ids: Sequence[ItemId]) -> dict[ItemId, str]:
        records = await self._store.load_items(item_ids, images=False)
        return {item_id: record.version for item_id, record in records.items()}

    # --- the model -------------------------------------------------------------------------------

    async def _score(
        self,
        request: wire.RecommendRequest,
        user_id: UserId,
        user: UserRecord | None,
        candidates: Candidates,
        deadline: float,
    ) -> Scores:
        num_scored = {
            "cheap": 0,
            "mllm": len(candidates.ordered),
            "cascade": request.num_scored or self._limits.num_scored,
        }[request.mode]
        sent = [each.item_id for each in candidates.ordered[:num_scored]]
        if not sent:
            return Scores({})
        preference = user.preference if user else ""
        versions = {item_id: candidates.versions[item_id] for item_id in sent}
        return await self._scorer.score(user_id, preference, versions, deadline=deadline)

    def _note(self, mode: wire.Mode, scores: Scores, timings: wire.Timings) -> None:
        self._metrics.recommendations.labels(mode, scores.reason or "").inc()
        stages = self._metrics.stage_seconds
        stages.labels("state").observe(timings.state_seconds)
        stages.labels("candidates").observe(timings.candidates_seconds)
        stages.labels("scoring").observe(timings.scoring_seconds)
        if scores.reason is not None:
            log.warning("recommendation_degraded", mode=mode, reason=scores.reason)


@asynccontextmanager
async def _store_answers_by(deadline: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError as error:
        raise StateUnavailable("Redis does not answer; it is frozen, or far too busy") from error


# --- the answer ----------------------------------------------------------------------------------


def _places(
    ordered: Sequence[CheapScores], margins: Mapping[ItemId, float]
) -> list[wire.RecommendedItem]:
    by_id = {each.item_id: each for each in ordered}
    final = merge_by_margin(list(by_id), margins)
    return [
        _place(rank, by_id[item_id], margins.get(item_id))
        for rank, item_id in enumerate(final, start=1)
    ]


def _place(rank: int, cheap: CheapScores, margin: float | None) -> wire.RecommendedItem:
    probability = None if margin is None else yes_probability(margin)
    scored_by: wire.ScoredBy
    if probability is not None:
        score, scored_by = probability, "mllm"
    elif cheap.neighbors > 0:
        score, scored_by = cheap.neighbors, "neighbors"
    else:
        score, scored_by = cheap.popularity, "popularity"
    return wire.RecommendedItem(
        item_id=cheap.item_id,
        rank=rank,
        score=score,
        scored_by=scored_by,
        probability=probability,
        source=cheap.source,
        parts=wire.Parts(margin=margin, neighbors=cheap.neighbors, popularity=cheap.popularity),
    )
