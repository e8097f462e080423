"""The target is the user's last item, ranked among the whole catalogue but for the history.

For the cheap rankers: a multimodal model cannot score so many items.
"""

from model_training.data.protocols.chrono_uniform import draw_any
from model_training.data.protocols.contract import LAST_IS_TARGET, Explanation, Protocol

PROTOCOL = Protocol(
    name="full",
    cut="last",
    draw_name="whole catalogue",
    draw=draw_any,
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
