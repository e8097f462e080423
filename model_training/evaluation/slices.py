"""Groups of users for whom models may differ in ways that a mean over all users hides.

    history length        interactions before the target
    target popularity     visible users of the target
    item age              era of the target among all items, in thirds
    cold targets          targets with hardly any visible user

Popularity and age count only what a ranker may learn from (`visible_items`).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model_training.data.inputs import Inputs
from model_training.data.protocols import Protocol
from model_training.data.ranking_tasks import RankingTask
from model_training.data.visible_items import VisibleItems
from model_training.evaluation.results import Slice

# Lower ends of the groups; each goes up to the next.
HISTORY_LENGTHS = (1, 6, 11, 21)
POPULARITIES = (0, 5, 20, 100)
# Below the interactions of any item in a 5-core: such an item could not be learned from them.
COLD_BELOW = 5


def slice_users(
    inputs: Inputs, protocol: Protocol, tasks: Sequence[RankingTask]
) -> dict[str, tuple[Slice, ...]]:
    """The groups of the users of these tasks, by property; groups without users are left out."""
    items = VisibleItems(inputs, protocol.cut)
    targets = inputs.indices([task.target for task in tasks])
    lengths = np.array([len(task.history) for task in tasks])
    popularity, age = items.popularity[targets], items.eras[targets]
    found = {
        "history length": _ranges(lengths, HISTORY_LENGTHS),
        "target popularity": _ranges(popularity, POPULARITIES),
        "item age": [
            ("oldest third", age < 1 / 3),
            ("middle third", (age >= 1 / 3) & (age < 2 / 3)),
            ("newest third", age >= 2 / 3),
            ("never seen", np.isnan(age)),
        ],
        "cold targets": [
            (f"cold (under {COLD_BELOW} takers)", popularity < COLD_BELOW),
            ("known", popularity >= COLD_BELOW),
        ],
    }
    return {
        name: tuple((group, mask) for group, mask in groups if mask.any())
        for name, groups in found.items()
    }


def _ranges(values: NDArray[np.int64], starts: Sequence[int]) -> list[Slice]:
    """Groups such as "1-5", "6-10" and "11+"."""
    groups = []
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        name = f"{start}+" if end is None else f"{start}-{end - 1}"
        groups.append((name, (values >= start) & (values < (end or np.inf))))
    return groups
