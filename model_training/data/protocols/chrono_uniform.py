"""The target is the user's last item; all other items are equally likely negatives."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model_training.data.negative_sampling import Draw, draw_uniform
from model_training.data.protocols.contract import LAST_IS_TARGET, Explanation, Protocol
from model_training.data.visible_items import VisibleItems
from services.core.records import ItemId


def draw_any(draw: Draw, items: VisibleItems, until_target: Sequence[ItemId]) -> NDArray[np.int64]:
    """Any item that the user never took."""
    return draw_uniform(draw, items.num_items)


PROTOCOL = Protocol(
    name="chrono-uniform",
    cut="last",
    draw_name="uniform",
    draw=draw_any,
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
