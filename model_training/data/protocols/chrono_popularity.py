"""The target is the user's last item; a negative is as likely as its number of users."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model_training.data.negative_sampling import Draw, draw_weighted
from model_training.data.protocols.contract import LAST_IS_TARGET, Explanation, Protocol
from model_training.data.visible_items import VisibleItems
from services.core.records import ItemId


def _draw(draw: Draw, items: VisibleItems, until_target: Sequence[ItemId]) -> NDArray[np.int64]:
    return draw_weighted(draw, items.popularity)


PROTOCOL = Protocol(
    name="chrono-popularity",
    cut="last",
    draw_name="popularity",
    draw=_draw,
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
