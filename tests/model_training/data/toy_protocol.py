"""A protocol of a test: negatives come from the first 32 items of the catalogue."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model_training.data.negative_sampling import Draw, draw_weighted
from model_training.data.protocols import LAST_IS_TARGET, Explanation, Protocol
from model_training.data.visible_items import VisibleItems


def _draw(draw: Draw, items: VisibleItems, until_target: Sequence[str]) -> NDArray[np.int64]:
    return draw_weighted(draw, (np.arange(items.num_items) < 32).astype(np.int64))


PROTOCOL = Protocol(
    name="toy",
    cut="last",
    draw_name="first items",
    draw=_draw,
    explanation=Explanation(
        "next item against the first items",
        LAST_IS_TARGET + "among {negatives:,} of the first items.",
        "that a protocol can be added",
        "anything else.",
    ),
)
