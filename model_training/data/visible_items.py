"""The popularity and the era of each item, counted without the targets that a protocol hides.

Negatives are drawn and users are grouped by these counts, which must not know more than the rankers
do. If targets were counted too, negatives drawn to be like a target would not look like it to the
rankers: on MicroLens-50k the era alone would have an AUC per user of 0.41, below chance.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model_training.data.inputs import Inputs
from model_training.data.item_eras import item_eras
from services.core.errors import HistoryTooShort
from services.core.records import ItemId, UserId
from services.core.splits import Cut, cut_history, split_users, training_popularity


def visible_histories(
    histories: Mapping[UserId, Sequence[ItemId]], cut: Cut
) -> dict[UserId, Sequence[ItemId]]:
    """What a ranker may learn from.

    Histories of training users are whole. Of validation and test users nothing at or after the
    target is visible, and nothing at all if there is no target. The cut `none` hides nothing.
    """
    if cut == "none":
        return dict(histories)
    split = split_users(list(histories))
    popularity = training_popularity(histories)
    visible: dict[UserId, Sequence[ItemId]] = {}
    for user_id, interactions in histories.items():
        if split[user_id] == "train":
            visible[user_id] = interactions
            continue
        with suppress(HistoryTooShort):
            visible[user_id] = cut_history(interactions, cut, popularity)
    return visible


class VisibleItems:
    """The catalogue by item index, as the histories that a cut leaves visible show it."""

    def __init__(self, inputs: Inputs, cut: Cut) -> None:
        """Nothing is counted before it is used."""
        self._inputs = inputs
        self._visible = visible_histories(inputs.histories, cut)

    @property
    def num_items(self) -> int:
        """Items in the catalogue."""
        return len(self._inputs.item_ids)

    @cached_property
    def popularity(self) -> NDArray[np.int64]:
        """How many users took each item: (num_items,)."""
        taken = [np.unique(np.asarray(history, np.int64)) for history in self._indexed]
        every = np.concatenate([np.empty(0, np.int64), *taken])
        return np.bincount(every, minlength=self.num_items)

    @cached_property
    def eras(self) -> NDArray[np.float64]:
        """Each item's era in [0, 1], NaN for an item without interactions: (num_items,)."""
        times = self._inputs.timestamps_ms
        if times is not None:  # the visible interactions are the first ones
            times_seen = [times[user][: len(items)] for user, items in self._visible.items()]
        return item_eras(self._indexed, self.num_items, None if times is None else times_seen)

    def era_of_last(self, item_ids: Sequence[ItemId]) -> float:
        """The era of the last of these items that has one; 0.5 if none has."""
        eras = self.eras[self._inputs.indices(item_ids)]
        known = eras[~np.isnan(eras)]
        return float(known[-1]) if len(known) else 0.5

    @cached_property
    def _indexed(self) -> list[list[int]]:
        return [self._inputs.indices(items) for items in self._visible.values()]
