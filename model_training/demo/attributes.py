"""The four attributes of a demo item, their values, and where each is visible.

palette, style    only in the cover
topic             in the cover (as the shape) and in the title
mood              only in the title
"""

from dataclasses import dataclass

VALUES: dict[str, tuple[str, ...]] = {
    "palette": ("red", "yellow", "green", "blue", "purple", "gray"),
    "topic": ("star", "moon", "heart", "house", "tree", "boat", "cup", "kite"),
    "style": ("flat", "outline", "striped", "dotted"),
    "mood": ("calm", "cheerful", "gloomy", "dreamy", "brave", "lonely"),
}
ATTRIBUTE_NAMES = tuple(VALUES)


@dataclass(frozen=True, slots=True)
class Attributes:
    """One value per attribute; "" if neither cover nor title shows it."""

    palette: str = ""
    topic: str = ""
    style: str = ""
    mood: str = ""

    def value_of(self, name: str) -> str:
        """The value of the attribute called `name`."""
        value: str = getattr(self, name)
        return value

    def seen(self, *, cover: bool = True, title: bool = True) -> "Attributes":
        """What shows of them in the cover, in a title of the demo world, or in both."""
        return Attributes(
            palette=self.palette if cover else "",
            topic=self.topic if cover or title else "",
            style=self.style if cover else "",
            mood=self.mood if title else "",
        )
