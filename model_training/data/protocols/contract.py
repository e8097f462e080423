"""What an evaluation protocol decides: which item is the target, and against what it is ranked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_training.data.negative_sampling import Draw
from model_training.data.visible_items import VisibleItems
from services.core.records import ItemId
from services.core.splits import Cut

# The protocol whose fusion serves.
SERVED = "chrono-uniform"

# From a user's draw, the visible items, and the history followed by the target, to item indices
# (num_negatives,). Raises RowRefused for a user with too few possible negatives.
DrawNegatives = Callable[[Draw, VisibleItems, Sequence[ItemId]], NDArray[np.int64]]

LAST_IS_TARGET = (
    "Each test user's last interaction is the target and everything before it the history; the "
    "target is ranked "
)


@dataclass(frozen=True)
class Explanation:
    """What a report says about a protocol; `task` has a field for the number of negatives."""

    label: str
    task: str
    shows: str
    hides: str
    warning: str = ""

    def task_of(self, num_negatives: int) -> str:
        """The task with its number of negatives."""
        return self.task.format(negatives=num_negatives)


@dataclass(frozen=True)
class Protocol:
    """How a target is held out and how its negatives are drawn.

    The cut also decides what a ranker may learn from: the whole histories of training users, and of
    validation and test users what comes before the target. `draw_name` and `settings` are in the
    manifest of the frozen negatives, so a change draws them again. With `whole_catalogue` the
    target is ranked among all items that the user had not taken, and the draw only decides which
    users have enough of them.
    """

    name: str
    cut: Cut
    draw_name: str
    draw: DrawNegatives
    explanation: Explanation
    settings: Mapping[str, Any] = field(default_factory=dict)
    whole_catalogue: bool = False

    @property
    def retrieval(self) -> str:
        """The artifact of the cheap rankers that have not seen this protocol's targets."""
        return "retrieval" if self.cut == "last" else f"retrieval-{self.cut}"

    @property
    def ranker(self) -> str:
        """The artifact that `msr fit-ranker` writes; that of the protocol SERVED is in service."""
        return "ranker" if self.name == SERVED else self.evaluated_ranker

    @property
    def evaluated_ranker(self) -> str:
        """The artifact of the fusion that an evaluation fits, for whichever engine it runs on."""
        return f"ranker-{self.name}"
