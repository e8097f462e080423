"""The cheap rankers: candidates and scores from interactions alone, in about a millisecond.

They propose what the multimodal model then looks at, and they answer alone when it is late. They
read the artifact `retrieval` that `msr fit-retrieval` makes.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.core.artifacts import Artifact
from services.core.records import ItemId
from services.retrieval.neighbors import Neighbors
from services.retrieval.popularity import rank_by_popularity

ARTIFACT = "retrieval"

Source = Literal["neighbors", "popularity", "new", "caller"]


@dataclass(frozen=True, slots=True)
class CheapScores:
    """What the cheap rankers know of one candidate.

    `neighbors` is the item-kNN score of the history (0 or more), `popularity` the number of users
    who took the item. `source` says who proposed it: a ranker, or the caller; "new" is a caller's
    item that the rankers have not seen yet.
    """

    item_id: ItemId
    source: Source
    neighbors: float
    popularity: float

    @property
    def order_key(self) -> tuple[float, float, str]:
        """Sort key, best first: by neighbors, then popularity, then id."""
        return (-self.neighbors, -self.popularity, self.item_id)


class CheapRankers:
    """Popularity and item-kNN over one catalogue. Immutable, safe to share between threads."""

    def __init__(
        self,
        item_ids: Sequence[ItemId],
        popularity: NDArray[np.int64],
        neighbors: Neighbors,
        fingerprint: str,
    ) -> None:
        """All arguments by item index; `fingerprint` names the artifact they came from."""
        self.fingerprint = fingerprint
        self._ids = list(item_ids)
        self._index = {item_id: index for index, item_id in enumerate(self._ids)}
        self._popularity = popularity
        self._neighbors = neighbors
        self._ranked = rank_by_popularity(popularity, self._ids)
        self._rank = np.empty_like(self._ranked)
        self._rank[self._ranked] = np.arange(len(self._ranked))

    @classmethod
    def load(cls, data: str) -> "CheapRankers":
        """Read the artifact in the data folder; ArtifactMissing if `msr fit-retrieval` has not
        run.
        """
        artifact = Artifact(data, ARTIFACT)
        fingerprint = artifact.manifest().fingerprint
        table = artifact.read(["item_id", "popularity", "neighbors", "weights"])
        return cls(
            item_ids=[ItemId(item_id) for item_id in table["item_id"].to_pylist()],
            popularity=table["popularity"].to_numpy().astype(np.int64),
            neighbors=_compress(table),
            fingerprint=fingerprint,
        )

    @property
    def num_items(self) -> int:
        """Size of the catalogue the rankers were fitted on."""
        return len(self._ids)

    def retrieve(
        self, history: Sequence[ItemId], *, limit: int, exclude: Collection[ItemId]
    ) -> list[CheapScores]:
        """Up to `limit` items, best first: those the history points at, then the most popular.

        `history` is oldest first; its items are proposed too unless `exclude` names them. Items
        the rankers have not seen count for nothing in either. A shorter list means that the
        catalogue has no more.
        """
        if limit < 1:
            return []
        scores = self._score(history)
        allowed = np.ones(len(self._ids), bool)
        allowed[self._known(exclude)] = False
        pointed = np.flatnonzero((scores > 0) & allowed)
        best = pointed[np.lexsort((self._rank[pointed], -scores[pointed]))][:limit]
        found = [self._scores(index, "neighbors", scores[index]) for index in best]
        allowed[best] = False
        # The most popular that are left stand among the first (limit + all not allowed) ranks.
        reach = limit + len(self._ids) - int(allowed.sum())
        fill = self._ranked[:reach]
        fill = fill[allowed[fill]][: limit - len(found)]
        return found + [self._scores(index, "popularity", 0.0) for index in fill]

    def score(self, history: Sequence[ItemId], candidates: Sequence[ItemId]) -> list[CheapScores]:
        """Scores of the caller's candidates, in the order given.

        An item that the rankers have not seen scores 0 with source "new".
        """
        scores = self._score(history)
        found = []
        for item_id in candidates:
            index = self._index.get(item_id)
            if index is None:
                found.append(CheapScores(item_id, "new", 0.0, 0.0))
            else:
                found.append(self._scores(index, "caller", scores[index]))
        return found

    def _score(self, history: Sequence[ItemId]) -> NDArray[np.float64]:
        return self._neighbors.score_history(self._known(history))

    def _known(self, item_ids: Iterable[ItemId]) -> list[int]:
        return [self._index[item_id] for item_id in item_ids if item_id in self._index]

    def _scores(self, index: int, source: Source, neighbors: float) -> CheapScores:
        return CheapScores(
            self._ids[index], source, float(neighbors), float(self._popularity[index])
        )


def _compress(table: pa.Table) -> Neighbors:
    rows, weights = table["neighbors"].combine_chunks(), table["weights"].combine_chunks()
    lengths = rows.value_lengths().to_numpy()
    return Neighbors(
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        indices=rows.flatten().to_numpy().astype(np.int32),
        weights=weights.flatten().to_numpy().astype(np.float32),
    )
