"""The reference implementation's protocol, kept to compare with published numbers.

The target is the last of the user's six most popular items, so popularity alone does well.
"""

from model_training.data.protocols.chrono_uniform import draw_any
from model_training.data.protocols.contract import Explanation, Protocol

PROTOCOL = Protocol(
    name="paper",
    cut="popular",
    draw_name="uniform",
    draw=draw_any,
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
