"""The color, dash and description of each model, the same in every plot and table.

Neighbors in a plot differ in lightness as well as in hue and also in their dashes. Each color has a
contrast of 3:1 against its background, light or dark.
"""

from dataclasses import dataclass

SOLID = "-"
DASHED = (0, (5, 2))
DOTTED = (0, (1, 1.5))
DASH_DOTTED = (0, (6, 2, 1, 2))


@dataclass(frozen=True)
class ModelStyle:
    """Colors as #rrggbb for light and dark pages, the line, and what the model is."""

    light: str
    dark: str
    dash: str | tuple[int, tuple[float, ...]]
    width: float
    description: str


STYLES = {
    "random": ModelStyle("#808080", "#8f959d", DOTTED, 1.4, "a random order: the level of chance"),
    "popularity": ModelStyle("#4a97c9", "#8ecbf0", DASHED, 1.4, "how many users took the item"),
    "trending": ModelStyle(
        "#b5830a", "#e6c04d", DASHED, 1.4, "popularity with time decay: current items first"
    ),
    "item-knn": ModelStyle(
        "#aa4499", "#e592d6", DASH_DOTTED, 1.4, "items that users of the history's items took too"
    ),
    "tf-idf": ModelStyle(
        "#2a9d8f", "#66d6c6", DASH_DOTTED, 1.4, "titles like those of the history"
    ),
    "sasrec": ModelStyle("#117733", "#4fc07a", SOLID, 1.6, "self-attention over the history's ids"),
    "fusion": ModelStyle(
        "#2a5fc4", "#8aaeff", SOLID, 1.8, "logistic model over all cheap rankers, without the MLLM"
    ),
    "mllm": ModelStyle(
        "#cc3311", "#ff8066", SOLID, 1.8, "P(Yes) of the multimodal model and its adapter alone"
    ),
    "mllm-fusion": ModelStyle(
        "#14171a",
        "#eceff1",
        SOLID,
        2.2,
        "the fusion with the multimodal model's margin",
    ),
}
UNLISTED = ModelStyle("#7a5c3e", "#cfae8b", SOLID, 1.4, "")


def style_of(model: str) -> ModelStyle:
    """The style of a model; an unknown one is brown and has no description."""
    return STYLES.get(model, UNLISTED)
