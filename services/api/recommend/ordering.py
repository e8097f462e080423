"""The order of candidates, and what each feature contributed, by the rankers in use.

    has been scored by the model    fusion with the margin, else the margin alone
    has not                         fusion of the cheap features, else SASRec, else titles, else
                                    what is trending

Fusion was learned from users with a history, so users without one are ranked without fusion.
Weights of a margin belong to one adapter. For an adapter without weights the cheap features are
still fused, and its scored candidates are ordered by the margin alone.
An Ordering is one immutable value: a request ends with the one that it began with.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from services.core import wire
from services.core.records import ItemId
from services.core.scoring import Calibration, yes_probability
from services.engines.contract import EngineIdentity
from services.retrieval.cheap_rankers import Basis, CheapRankers, CheapScores
from services.retrieval.features import FEATURES, MARGIN
from services.retrieval.fusion import Fusion, Ranker

T = TypeVar("T")

INTERCEPT = "intercept"


def merge_by_score(cheap_order: Sequence[T], scores: Mapping[T, float]) -> list[T]:
    """`cheap_order` (best first) with the scored items sorted among the places that they hold.

    Higher scores come first; equal ones keep their cheap order.
    """
    by_score = iter(
        sorted((each for each in cheap_order if each in scores), key=lambda each: -scores[each])
    )
    return [next(by_score) if each in scores else each for each in cheap_order]


@dataclass(frozen=True, slots=True)
class Ordered:
    """Candidates, best first by the cheap rankers, and what ordered them.

    `fusion` is None if the feature `by` alone ordered them.
    """

    candidates: Sequence[CheapScores]
    by: wire.ScoredBy
    fusion: Fusion | None


@dataclass(frozen=True)
class Ordering:
    """The cheap rankers and, if fitted, their fusion. Safe to share between threads."""

    rankers: CheapRankers
    ranker: Ranker | None
    calibration: Calibration
    # Weights for the margins of other adapters, by these adapters' fingerprints.
    for_adapters: Mapping[str, Ranker] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        rankers: CheapRankers,
        ranker: Ranker | None,
        identity: EngineIdentity,
        for_adapters: Mapping[str, Ranker] | None = None,
        *,
        any_adapter: bool = False,
    ) -> "Ordering":
        """ArtifactMismatch if the ranker weighs other features or, unless `any_adapter`, margins of
        another model.
        """
        if ranker is not None:
            ranker.require_retrieval(rankers.definition)
            if not any_adapter:
                ranker.require_engine(model=identity.model, adapter=identity.adapter)
        return cls(rankers, ranker, identity.calibration, for_adapters or {})

    def by(self, identity: EngineIdentity) -> "Ordering":
        """The same rankers for the margins of this adapter, with its own weights if any."""
        ranker = self.ranker
        if ranker is not None and not ranker.weighs(identity.model, identity.adapter):
            own = self.for_adapters.get(identity.adapter)
            fits = own is not None and own.weighs(identity.model, identity.adapter)
            ranker = own if fits else ranker.without_margin()
        return replace(self, ranker=ranker, calibration=identity.calibration)

    @property
    def cheap_order(self) -> wire.ScoredBy:
        """What orders the candidates of a user with a history before scoring."""
        return "fusion" if self.ranker is not None else "sequential"

    @property
    def final_order(self) -> wire.ScoredBy:
        """What orders such a user's scored candidates."""
        return "mllm-fusion" if self.ranker is not None and self.ranker.with_margin else "mllm"

    # --- before the model ------------------------------------------------------------------------

    def new_items(self, item_ids: Iterable[ItemId]) -> list[ItemId]:
        """Those that the rankers were fitted without; only their titles are known."""
        return [item_id for item_id in item_ids if self.rankers.index_of(item_id) is None]

    def retrieve(
        self,
        history: Sequence[ItemId],
        titles: Mapping[ItemId, str],
        *,
        limit: int,
        exclude: Collection[ItemId],
    ) -> Ordered:
        """Up to `limit` items of the catalogue, best first; `titles` are of new items that the
        history holds.
        """
        by = self.rankers.basis(history, titles)
        fusion = self._fusion(by)
        found = self.rankers.retrieve(
            history,
            limit=limit,
            exclude=exclude,
            order=None if fusion is None else fusion.logits,
            titles=titles,
        )
        return self._ordered(found, by)

    def judge(
        self, history: Sequence[ItemId], candidates: Sequence[ItemId], titles: Mapping[ItemId, str]
    ) -> Ordered:
        """The caller's candidates, best first; equal ones keep the caller's order.

        `titles`: those of new items among the candidates and in the history.
        """
        found = self.rankers.score(history, candidates, titles)
        by = self.rankers.basis(history, titles)
        ordered = self._ordered(found, by)
        if not found:
            return ordered
        values = _matrix(found)
        if ordered.fusion is None:
            keys = values[:, FEATURES.index(by)]
        else:
            keys = ordered.fusion.logits(values)
        best_first = np.argsort(-keys, kind="stable")
        return replace(ordered, candidates=[found[row] for row in best_first])

    def _ordered(self, found: Sequence[CheapScores], by: Basis) -> Ordered:
        fusion = self._fusion(by)
        return Ordered(found, by if fusion is None else "fusion", fusion)

    def _fusion(self, by: Basis) -> Fusion | None:
        return self.ranker.cheap if self.ranker is not None and by == "sequential" else None

    # --- after it --------------------------------------------------------------------------------

    def places(
        self, ordered: Ordered, margins: Mapping[ItemId, float], mode: wire.Mode, k: int
    ) -> list[wire.RecommendedItem]:
        """The best `k`: those with a margin by the final order, the others at their cheap place.

        Mode `mllm` orders by the margin alone.
        """
        scored = [each for each in ordered.candidates if each.item_id in margins]
        fusion = None
        if mode == "cascade" and ordered.fusion is not None and self.ranker is not None:
            fusion = self.ranker.with_margin
        final = {each.item_id: margins[each.item_id] for each in scored}
        if fusion is not None and scored:
            features = np.column_stack([_matrix(scored), list(final.values())])
            final = dict(zip(final, fusion.logits(features).tolist(), strict=True))
        by_id = {each.item_id: each for each in ordered.candidates}
        best = [by_id[item_id] for item_id in merge_by_score(list(by_id), final)[:k]]
        return [
            self._place(rank, each, margins.get(each.item_id), ordered, fusion)
            for rank, each in enumerate(best, start=1)
        ]

    def _place(
        self,
        rank: int,
        cheap: CheapScores,
        margin: float | None,
        ordered: Ordered,
        with_margin: Fusion | None,
    ) -> wire.RecommendedItem:
        values = dict(zip(FEATURES, cheap.values, strict=True))
        contributions: Mapping[str, float] = {}
        by = ordered.by
        if margin is not None:
            values[MARGIN] = margin
            if with_margin is not None:
                by, contributions = "mllm-fusion", _explain(with_margin, values)
            else:
                slope, intercept = self.calibration.slope, self.calibration.intercept
                by, contributions = "mllm", {MARGIN: slope * margin, INTERCEPT: intercept}
        elif ordered.fusion is not None:
            contributions = _explain(ordered.fusion, values)
        if contributions:
            values[INTERCEPT] = 1.0
            score = yes_probability(sum(contributions.values()))
        else:
            score = values[by]
        return wire.RecommendedItem(
            item_id=cheap.item_id,
            rank=rank,
            score=score,
            scored_by=by,
            probability=None if margin is None else self.calibration.probability(margin),
            source=cheap.source,
            parts={
                name: wire.Part(value=value, contribution=contributions.get(name))
                for name, value in values.items()
            },
        )


def _matrix(found: Sequence[CheapScores]) -> NDArray[np.float64]:
    return np.array([each.values for each in found], np.float64)


def _explain(fusion: Fusion, values: Mapping[str, float]) -> dict[str, float]:
    """What each feature and the intercept add to the log-odds of one candidate."""
    row = np.array([[values[feature] for feature in fusion.features]])
    contributions = fusion.contributions(row)[0].tolist()
    return {**dict(zip(fusion.features, contributions, strict=True)), INTERCEPT: fusion.intercept}
