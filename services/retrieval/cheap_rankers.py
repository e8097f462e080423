"""The cheap rankers: candidates and scores from interactions and titles alone, in milliseconds.

They propose the candidates that the multimodal model scores, and order them alone when it is late.
They read the artifact `retrieval` of `msr fit-retrieval`; `features.py` defines what they compute
for a candidate.

Cold start. A user without a history gets trending items; a user whose items all came online after
the fit gets items with similar titles. For an item without interactions SASRec uses the mean vector
of its content neighbors (`tfidf.py`), and likewise for a candidate that is not in the artifact, if
its title is given. Otherwise a value is neutral:

    sequential   without a history: log of the item's share of all interactions, each item with one
                 more; for an item of which nothing is known: log(1 / items)
    recency      0, if either era is unknown; the era of a history's end is that of its newest item
    others       0
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from services.core.artifacts import Artifact
from services.core.fingerprint import fingerprint
from services.core.records import ItemId
from services.retrieval.artifact import RetrievalModel, read
from services.retrieval.features import FEATURES
from services.retrieval.popularity import rank_items
from services.retrieval.ranker import Items
from services.retrieval.rankers import RANKERS
from services.retrieval.sparse_scores import SparseScores, top
from services.retrieval.tfidf import MAX_HISTORY as MAX_TITLES
from services.retrieval.tfidf import Terms
from services.retrieval.vector_index import Scan, VectorIndex

ARTIFACT = "retrieval"

# The rankers that propose candidates; of those that propose one at the same place, the first is its
# source. Other sources are "caller", and "new": a caller's item that the rankers do not know.
PROPOSERS = ("sequential", "neighbors", "titles", "trending", *(each.name for each in RANKERS))

# The feature that alone orders candidates for a history where no fusion does.
Basis = Literal["sequential", "titles", "trending"]

Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CheapScores:
    """The features of one candidate: `values` in the order of FEATURES; `taken_by` is the number
    of users who took it, among those whose whole history the rankers were fitted on.
    """

    item_id: ItemId
    source: str
    values: tuple[float, ...]
    taken_by: int


@dataclass(frozen=True)
class _User:
    """What is computed from a history; `scan` and `vector` are None without known items."""

    vector: NDArray[np.float32] | None
    scan: Scan | None
    neighbors: SparseScores
    profile: Terms
    items: Sequence[int]


_THREADS = Lock()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keeps torch to the calling thread.

    Two threads gain nothing on one history (0.51 and 0.55 ms on two idle cores), and where the
    cores are taken, by an engine in this process say, one of ten calls waits 240 ms for the other.
    The number is also the default of threads that are new to torch, so one call at a time changes
    it and puts it back; an engine sets that of its own thread (`engines/local/engine.py`).
    """
    with _THREADS:
        num_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(num_threads)


class CheapRankers:
    """All cheap rankers over one catalogue. Immutable, safe to share between threads."""

    def __init__(self, fitted: RetrievalModel, *, fingerprint: str, definition: str) -> None:
        """`fingerprint` names the artifact, `definition` how it was fitted, whatever the data: what
        a fusion that weighs these features relies on.
        """
        self.fingerprint = fingerprint
        self.definition = definition
        self.item_ids: Sequence[ItemId] = fitted.item_ids
        self._index = {item_id: index for index, item_id in enumerate(fitted.item_ids)}
        self._fitted = fitted
        self.vectors = VectorIndex(fitted.sequential.item_vectors, fitted.cell_ends)
        self._was_taken = fitted.was_taken
        self._rankers = fitted.rankers
        self._trending = rank_items(fitted.trending, fitted.popularity)
        smoothed = fitted.popularity + 1.0
        self._log_share = np.log(smoothed / smoothed.sum()).astype(np.float32)
        self._log_any = float(-np.log(len(fitted.item_ids)))
        self._log_share_untaken = float(-np.log(smoothed.sum()))

    @classmethod
    def load(cls, data: str, name: str = ARTIFACT) -> "CheapRankers":
        """Read an artifact in the data folder; ArtifactMissing if `msr fit-retrieval` has not made
        it, ArtifactMismatch if another version did or it is just being replaced.
        """
        manifest = Artifact(data, name).manifest()
        # The cut decides which interactions are seen, not what is made of them.
        method = {key: value for key, value in manifest.definition.items() if key != "cut"}
        return cls(
            read(data, name),
            fingerprint=manifest.fingerprint,
            definition=fingerprint(method),
        )

    @property
    def num_items(self) -> int:
        """Size of the catalogue the rankers were fitted on."""
        return len(self.item_ids)

    def index_of(self, item_id: ItemId) -> int | None:
        """The row of an item in `features_of_all`; None if the rankers have not seen it."""
        return self._index.get(item_id)

    def basis(self, history: Sequence[ItemId], titles: Mapping[ItemId, str] = {}) -> Basis:
        """What is known of a user: `sequential` if the rankers have seen an item of the history,
        `titles` if `titles` tell of one, else nothing, so that what is trending must do.
        """
        if self._known(history):
            return "sequential"
        profile = self._profile(history[-MAX_TITLES:], titles)
        return "titles" if len(profile.columns) else "trending"

    def features(
        self,
        history: Sequence[ItemId],
        candidates: Sequence[ItemId],
        titles: Mapping[ItemId, str] = {},
    ) -> Features:
        """What is known of each candidate for a user: (C, F), in the order given.

        `history` is oldest first. `titles` are of items, in either, that came online after the
        fit; without its title such an item has neutral values throughout.
        """
        user = self._read(history, titles)
        rows = np.array([self._index.get(item_id, -1) for item_id in candidates], np.int64)
        found = np.empty((len(rows), len(FEATURES)), np.float32)
        found[rows >= 0] = self._features(user, rows[rows >= 0])
        for place in np.flatnonzero(rows < 0).tolist():
            found[place] = self._features_of_new(user, titles.get(candidates[place]))
        return found

    def features_of_all(self, history: Sequence[ItemId]) -> Features:
        """`features` of the whole catalogue: (num_items, F), rows by `index_of`."""
        return self._features(self._read(history, {}), np.arange(self.num_items))

    def score(
        self,
        history: Sequence[ItemId],
        candidates: Sequence[ItemId],
        titles: Mapping[ItemId, str] = {},
    ) -> list[CheapScores]:
        """`features` of the caller's candidates, with who they are; in the order given."""
        rows = self.features(history, candidates, titles).tolist()
        return [
            self._scores(item_id, "caller" if item_id in self._index else "new", row)
            for item_id, row in zip(candidates, rows, strict=True)
        ]

    def retrieve(
        self,
        history: Sequence[ItemId],
        *,
        limit: int,
        exclude: Collection[ItemId],
        order: Callable[[Features], NDArray[np.floating]] | None = None,
        titles: Mapping[ItemId, str] = {},
    ) -> list[CheapScores]:
        """Up to `limit` items, best first: the best by `order` of what every ranker proposes.

        `order` maps features (C, F) to scores (C,), higher first; `sequential` if None. For a
        history of which the rankers have seen nothing the order is that of `basis`, equal ones by
        what is trending. `titles` are of items in the history that came online after the fit. Items
        of the history are proposed too unless `exclude` names them. A shorter list means that the
        catalogue has no more.
        """
        if limit < 1:
            return []
        user = self._read(history, titles)
        pool, sources = self._propose(user, limit, np.array(self._known(exclude), np.int64))
        values = self._features(user, pool)
        if user.vector is None:
            # What orders other users' items was learned on histories; here it would guess.
            scores = self._fitted.trending[pool]
            if len(user.profile.columns):
                scores = values[:, FEATURES.index("titles")].astype(np.float64)
        elif order is None:
            scores = values[:, FEATURES.index("sequential")].astype(np.float64)
        else:
            scores = np.asarray(order(values), np.float64)
        best = top(scores, limit)
        rows = zip(pool[best].tolist(), sources[best].tolist(), values[best].tolist(), strict=True)
        return [
            self._scores(self.item_ids[item], PROPOSERS[source], row) for item, source, row in rows
        ]

    # --- one user --------------------------------------------------------------------------------

    def _read(self, history: Sequence[ItemId], new_titles: Mapping[ItemId, str]) -> _User:
        known = self._known(history)
        vector = None
        if known:
            with _one_thread():
                vector = self._fitted.sequential.encode(known)
        return _User(
            vector=vector,
            scan=None if vector is None else self.vectors.scan(vector),
            neighbors=self._fitted.neighbors.score_history(known),
            profile=self._profile(history[-MAX_TITLES:], new_titles),
            items=known,
        )

    def _profile(self, history: Sequence[ItemId], new_titles: Mapping[ItemId, str]) -> Terms:
        parts = []
        for item_id in history:
            if (index := self._index.get(item_id)) is not None:
                parts.append(self._fitted.titles.row(index))
            elif item_id in new_titles:
                parts.append(self._fitted.titles.read(new_titles[item_id]))
        return Terms.sum(parts)

    def _propose(self, user: _User, limit: int, excluded: Items) -> tuple[Items, Items]:
        """Items, trending ones first, and by place in PROPOSERS who proposed each the highest."""
        # As many more as may fall out, so that a full list remains wherever the catalogue has one.
        num = limit + len(excluded)
        proposed: dict[str, Items] = {
            "sequential": user.scan.best(limit + num) if user.scan else np.empty(0, np.int64),
            "neighbors": user.neighbors.best(num),
            "titles": self._fitted.titles.similar(user.profile, num),
            "trending": self._trending[:num],
            **{name: each.propose(user.items, num) for name, each in self._rankers.items()},
        }
        items = np.concatenate([proposed[source] for source in PROPOSERS])
        sources = np.repeat(
            np.arange(len(PROPOSERS)), [len(proposed[source]) for source in PROPOSERS]
        )
        places = np.concatenate([np.arange(len(proposed[source])) for source in PROPOSERS])
        by_item = np.lexsort((sources, places, items))
        items, sources = items[by_item], sources[by_item]
        first = np.diff(items, prepend=-1) > 0
        pool, sources = items[first], sources[first]
        allowed = ~np.isin(pool, excluded)
        pool, sources = pool[allowed], sources[allowed]
        # Equal scores keep this order.
        by_trend = np.lexsort((-self._fitted.popularity[pool], -self._fitted.trending[pool]))
        return pool[by_trend], sources[by_trend]

    # --- features --------------------------------------------------------------------------------

    def _features(self, user: _User, items: Items) -> Features:
        fitted = self._fitted
        columns: dict[str, NDArray[np.floating]] = {
            "popularity": np.log1p(fitted.popularity[items]),
            "trending": np.log1p(fitted.trending[items]),
            "neighbors": np.log1p(user.neighbors.of(items)),
            "sequential": self._sequential(user, items),
            "titles": fitted.titles.cosines(user.profile, items),
            **{name: each.features(user.items, items) for name, each in self._rankers.items()},
        }
        return np.column_stack([columns[name] for name in FEATURES]).astype(np.float32)

    def _sequential(self, user: _User, items: Items) -> NDArray[np.float32]:
        if user.vector is None or user.scan is None:
            return np.asarray(self._log_share[items], np.float32)
        scores = np.vecdot(self.vectors.vectors[items], user.vector)
        return np.asarray(scores - np.float32(user.scan.log_normalizer), np.float32)

    def _features_of_new(self, user: _User, title: str | None) -> Features:
        """Features (F,) of an item that the artifact does not have."""
        known = {"sequential": self._log_any, "titles": 0.0}
        terms = self._fitted.titles.read(title) if title is not None else Terms.sum([])
        if user.vector is None or user.scan is None:
            known["sequential"] = self._log_share_untaken
        elif len(terms.columns):
            vector = self._fitted.titles.content_vector(
                terms, self._was_taken, self.vectors.vectors
            )
            if vector is not None:
                known["sequential"] = float(vector @ user.vector) - user.scan.log_normalizer
        known["titles"] = float(terms.weights @ user.profile.weights_of(terms.columns))
        return np.array([known.get(name, 0.0) for name in FEATURES], np.float32)

    def _known(self, item_ids: Iterable[ItemId]) -> list[int]:
        return [self._index[item_id] for item_id in item_ids if item_id in self._index]

    def _scores(self, item_id: ItemId, source: str, values: Sequence[float]) -> CheapScores:
        index = self._index.get(item_id)
        taken_by = 0 if index is None else int(self._fitted.popularity[index])
        return CheapScores(item_id, source, tuple(values), taken_by)
