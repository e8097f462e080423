"""The evaluation protocols: which item is the target, and against what it is ranked.

A new one is an entry of PROTOCOLS.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_training.data.negative_sampling import (
    ERA_SHARE,
    MIN_ERA_ITEMS,
    Draw,
    draw_near_era,
    draw_uniform,
    draw_weighted,
)
from model_training.data.visible_items import VisibleItems
from services.core.errors import InputError
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


def _any(draw: Draw, items: VisibleItems, until_target: Sequence[ItemId]) -> NDArray[np.int64]:
    return draw_uniform(draw, items.num_items)


def _popular(draw: Draw, items: VisibleItems, until_target: Sequence[ItemId]) -> NDArray[np.int64]:
    return draw_weighted(draw, items.popularity)


def _of_its_time(
    draw: Draw, items: VisibleItems, until_target: Sequence[ItemId]
) -> NDArray[np.int64]:
    # A target without visible interactions has no era; the last item before it with one is used.
    return draw_near_era(draw, items.eras, items.era_of_last(until_target))


# The target is the user's last item; all other items are equally likely negatives.
CHRONO_UNIFORM = Protocol(
    name="chrono-uniform",
    cut="last",
    draw_name="uniform",
    draw=_any,
    explanation=Explanation(
        "next item against items drawn uniformly",
        LAST_IS_TARGET
        + "among {negatives:,} items drawn uniformly from those the user never took.",
        "whether a model distinguishes a user's next item from arbitrary ones; the task that most "
        "papers report",
        "how good the top of a whole catalogue is. Most of the drawn items are rarely taken or out "
        "of date, so popularity and recency alone do well here.",
    ),
)
# The target is the user's last item; a negative is as likely as its number of users.
CHRONO_POPULARITY = Protocol(
    name="chrono-popularity",
    cut="last",
    draw_name="popularity",
    draw=_popular,
    explanation=Explanation(
        "next item against popular items",
        LAST_IS_TARGET
        + "among {negatives:,} items that the user never took, drawn in proportion to "
        "how many users took them.",
        "what a model knows about a user beyond popularity",
        "the value of popularity in service: popular items are drawn as negatives, so popularity "
        "alone falls to chance or below.",
    ),
)
# The target is the user's last item; negatives are items that were current at the same time.
CHRONO_ERA = Protocol(
    name="chrono-era",
    cut="last",
    draw_name="era",
    draw=_of_its_time,
    settings={"era_share": ERA_SHARE, "min_era_items": MIN_ERA_ITEMS},
    explanation=Explanation(
        "next item against items of its time",
        LAST_IS_TARGET
        + "among {negatives:,} items that the user never took and that are as recent "
        "as the target.",
        "whether a model knows the user's taste among current items; the hardest of the sampled "
        "tasks, and the one where recency helps least",
        "the value of recency in service.",
    ),
)
# The reference implementation's protocol, kept to compare with published numbers. The target is
# the last of the user's six most popular items, so popularity alone does well.
PAPER = Protocol(
    name="paper",
    cut="popular",
    draw_name="uniform",
    draw=_any,
    explanation=Explanation(
        "the protocol of the published method",
        "Of each test user's six items that most training users took, the one taken last is the "
        "target; the history is what came before it, and the target is ranked among {negatives:,} "
        "items that the user never took.",
        "how a model compares with numbers published under the same protocol, where the data was "
        "filtered alike",
        "how well the next item is predicted: the target is popular by construction.",
        "The paper protocol picks popular targets: popularity alone does well under it, and its "
        "numbers cannot be compared with those of other protocols.",
    ),
)
# The target is ranked among the whole catalogue but for the history. For the cheap rankers: a
# multimodal model cannot score so many items.
FULL = Protocol(
    name="full",
    cut="last",
    draw_name="whole catalogue",
    draw=_any,
    whole_catalogue=True,
    explanation=Explanation(
        "next item against the whole catalogue",
        LAST_IS_TARGET
        + "against every other item that the user had not taken before, {negatives:,} "
        "on average; the pooled AUC is estimated from 100 of them a user, drawn uniformly.",
        "what retrieval does in service: find the target among all items",
        "how good a list looks to the user: an item that the user was never shown counts as wrong. "
        "The multimodal model is left out, since it scores short lists only.",
    ),
)

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (CHRONO_UNIFORM, CHRONO_POPULARITY, CHRONO_ERA, PAPER, FULL)
}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name; InputError names the known ones."""
    if name not in PROTOCOLS:
        raise InputError(f"there is no protocol {name!r}; choose from {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
