"""What a cheap ranker is: fitted on interactions, stored with the items, asked for every user.

To add a ranker, write one module with a class of this Protocol and add the class to the list in
`rankers.py`. It is then fitted by `msr fit-retrieval`, stored and loaded with the others, proposes
candidates, is weighed by fusion, and is a model of `msr evaluate`.

Popularity, trending, item-kNN, titles and SASRec have their own places in `cheap_rankers.py`
instead. The cold start is defined by them together, and what they compute for a user once serves
both the search for candidates and the features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Items = NDArray[np.int64]


@dataclass(frozen=True)
class TrainingData:
    """What a ranker is fitted on; an item is its index in the catalogue.

    `histories` has a row per user, oldest first; `timestamps_ms` has the same shape and is None
    where only the order is known. `eras` (num_items,) are in [0, 1], NaN without interactions.
    """

    titles: Sequence[str]
    histories: Sequence[Sequence[int]]
    timestamps_ms: Sequence[Sequence[int]] | None
    eras: NDArray[np.float64]


class CheapRanker(Protocol):
    """One fitted ranker. Immutable, safe to share between threads.

    `name` is its feature, its name as a source of candidates and, if `is_evaluated`, its model in
    an evaluation. `columns` are those of its table; no other ranker has columns of these names.
    """

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    is_evaluated: ClassVar[bool]

    @classmethod
    def fit(cls, data: TrainingData) -> Self:
        """Learn from the visible interactions; the same data give the same ranker."""
        ...

    def features(self, history: Sequence[int], items: Items) -> NDArray[np.floating]:
        """A finite value for each item: (C,). 0 is neutral, as for items fitted without."""
        ...

    def propose(self, history: Sequence[int], num: int) -> Items:
        """Up to `num` items, best first; none if the ranker only scores."""
        ...

    def to_table(self) -> pa.Table:
        """What `from_table` needs, a row per item."""
        ...

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """The ranker whose `to_table` gave this."""
        ...
