"""Item-kNN: how similar an item is to those of a history.

    score(c) = sum over the history of RECENCY_DECAY ** age * weight(history item, c)

The newest item of the history has age 0. A weight is the similarity of the users of two items, zero
beyond an item's kept neighbors. Summing over the history and preferring the recent measured best
(MicroLens-50k, 1 + 20 uniform negatives: AUC 0.722; without decay 0.718, and 0.69 with 200
neighbors an item instead of 1,000).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.retrieval.sparse_scores import SparseScores

RECENCY_DECAY = 0.9
# 0.9 ** 100 is 3e-5: what lies further back cannot change an order, only cost time.
MAX_HISTORY = 100


@dataclass(frozen=True)
class Neighbors:
    """The kept neighbors of every item, in compressed rows.

    Row i is `indices[starts[i] : starts[i + 1]]` with `weights` beside it; `starts` has
    num_items + 1 entries.
    """

    starts: NDArray[np.int64]
    indices: NDArray[np.int32]
    weights: NDArray[np.float32]

    def score_history(self, history: Sequence[int]) -> SparseScores:
        """Scores of the neighbors of a history of item indices, oldest first."""
        recent = history[-MAX_HISTORY:]
        rows = [slice(self.starts[i], self.starts[i + 1]) for i in recent]
        decays = [RECENCY_DECAY**age for age in reversed(range(len(recent)))]
        indices = [self.indices[row] for row in rows]
        parts = [self.weights[row] * np.float64(by) for row, by in zip(rows, decays, strict=True)]
        return SparseScores.sum(
            np.concatenate([np.empty(0, np.int64), *indices]),
            np.concatenate([np.empty(0), *parts]),
            len(self.starts) - 1,
        )
