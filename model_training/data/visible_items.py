"""What can be known of items before any target is seen: how many took one, and when it was current.

Negatives are drawn by it and slices are made by it. Both must not know more than the rankers. Were
targets counted too, what is drawn as a target's equal would not look like it to the rankers: on
MicroLens-50k era alone would have an AUC per user of 0.41, which is the wrong side of chance.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model_training.data.inputs import Histories, read_item_ids, read_timestamps
from model_training.data.item_eras import item_eras
from model_training.data.protocols import visible_histories
from services.core.errors import ArtifactMismatch
from services.core.records import ItemId
from services.core.splits import Cut


class VisibleItems:
    """The catalogue, by item index, as what is visible under a cut shows it."""

    def __init__(self, data: str, histories: Histories, cut: Cut) -> None:
        """Nothing is counted before it is asked for."""
        self.ids = read_item_ids(data)
        self.index = {item_id: number for number, item_id in enumerate(self.ids)}
        self._data = data
        self._visible = visible_histories(histories.by_user, cut)

    @cached_property
    def takers(self) -> NDArray[np.int64]:
        """How many users are seen to take each item: (num_items,)."""
        taken = [np.unique(np.asarray(history, np.int64)) for history in self._indexed]
        every = np.concatenate([np.empty(0, np.int64), *taken])
        return np.bincount(every, minlength=len(self.ids))

    @cached_property
    def eras(self) -> NDArray[np.float64]:
        """Each item's era in [0, 1], NaN for one that nobody is seen to take: (num_items,)."""
        times = read_timestamps(self._data)
        if times is not None:  # what is visible of a user is the beginning
            times_seen = [times[user][: len(items)] for user, items in self._visible.items()]
        return item_eras(self._indexed, len(self.ids), None if times is None else times_seen)

    def indices(self, items: Sequence[ItemId]) -> list[int]:
        """Item indices; ArtifactMismatch if the catalogue lacks one."""
        try:
            return [self.index[item_id] for item_id in items]
        except KeyError as error:
            raise ArtifactMismatch(
                f"the interactions name item {error.args[0]!r}, which the catalogue lacks; run "
                "`msr prepare-catalogue` again"
            ) from error

    @cached_property
    def _indexed(self) -> list[list[int]]:
        return [self.indices(items) for items in self._visible.values()]
