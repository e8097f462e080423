"""Recency: how much later an item came online than the items at the end of the history.

score(c) = era of c - era of the newest item of the history, in [-1, 1]; 0 if one is unknown
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from services.retrieval.item_knn import MAX_HISTORY
from services.retrieval.ranker import CheapRanker, Items, TrainingData


@dataclass(frozen=True)
class Recency(CheapRanker):
    """The era of every item, NaN without interactions: (num_items,). It proposes no items."""

    eras: NDArray[np.float64]

    name: ClassVar[str] = "recency"
    columns: ClassVar[tuple[str, ...]] = ("era",)
    is_evaluated: ClassVar[bool] = False

    @classmethod
    def fit(cls, data: TrainingData) -> Self:
        """Eras are inferred before any ranker is fitted."""
        return cls(data.eras)

    def features(self, history: Sequence[int], items: Items) -> NDArray[np.floating]:
        """Differences of eras: (C,)."""
        eras = self.eras[np.asarray(history[-MAX_HISTORY:], np.int64)]
        eras = eras[~np.isnan(eras)]
        end = float(eras.max()) if len(eras) else float("nan")
        return np.nan_to_num(self.eras[items] - end, nan=0.0)

    def propose(self, history: Sequence[int], num: int) -> Items:
        """None."""
        return np.empty(0, np.int64)

    def to_table(self) -> pa.Table:
        """NaN stays NaN, and is no null."""
        return pa.table({"era": pa.array(self.eras, pa.float64(), from_pandas=False)})

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """The eras of a table."""
        return cls(table["era"].to_numpy())
