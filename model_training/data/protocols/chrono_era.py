"""The target is the user's last item; negatives are items that were current at the same time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model_training.data.negative_sampling import ERA_SHARE, MIN_ERA_ITEMS, Draw, draw_near_era
from model_training.data.protocols.contract import LAST_IS_TARGET, Explanation, Protocol
from model_training.data.visible_items import VisibleItems
from services.core.records import ItemId


def _draw(draw: Draw, items: VisibleItems, until_target: Sequence[ItemId]) -> NDArray[np.int64]:
    # A target without visible interactions has no era; the last item before it with one is used.
    return draw_near_era(draw, items.eras, items.era_of_last(until_target))


PROTOCOL = Protocol(
    name="chrono-era",
    cut="last",
    draw_name="era",
    draw=_draw,
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
