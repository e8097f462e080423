"""A ranker that the code does not know: an item counts by when it was last taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa

from services.retrieval.ranker import CheapRanker, Items, TrainingData


@dataclass(frozen=True)
class LastTaken(CheapRanker):
    places: np.ndarray

    name: ClassVar[str] = "last-taken"
    columns: ClassVar[tuple[str, ...]] = ("last_place",)
    is_evaluated: ClassVar[bool] = True

    @classmethod
    def fit(cls, data: TrainingData) -> Self:
        places = np.zeros(len(data.titles))
        for history in data.histories:
            places[history] = np.maximum(places[history], np.arange(1, len(history) + 1))
        return cls(places)

    def features(self, history: Sequence[int], items: Items) -> np.ndarray:
        return self.places[items]

    def propose(self, history: Sequence[int], num: int) -> Items:
        return np.argsort(-self.places, kind="stable")[:num].astype(np.int64)

    def to_table(self) -> pa.Table:
        return pa.table({"last_place": self.places})

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        return cls(table["last_place"].to_numpy())
