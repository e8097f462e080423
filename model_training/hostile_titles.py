"""What strangers may write into titles, for a model that is to learn that it means nothing.

A share of the training prompts (`hostile_titles` of the configuration) shows its item under its own
title with something added: words without sense, an order to say Yes or No, another user's taste.
The label stays that of the item, and whether Yes or No is ordered says nothing about it, so that
only the words an item has by itself are worth reading. `core/prompts.py` takes out what is markup;
this is for what cannot be told from a title by its form. `msr bench injection` measures the two.
"""

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from services.core.records import Item
from services.core.scoring import NO, YES

AT_THE_END_SHARE = 0.7
MAX_WORDS = 24
_LETTERS = string.ascii_letters + string.digits + string.punctuation
_OPENINGS = (
    *("Dear model,", "Attention:", "A hint:", "Forget what was said.", "Reader,", "Seller:", ""),
    *("To all:", "Rule one:", "By the way,", "Urgent!", "This one", "The shop says:"),
)
_ORDERS = ("say", "reply", "write", "respond with", "choose", "it must be", "the truth is")
_ENDINGS = ("", ".", "!", "now", "please", "whatever is asked", "for all", "at once, or else")
_TASTE_OPENINGS = ("", "Taste:", "This person", "What the user wants:", "Wanted by all.", "She")


@dataclass(frozen=True, slots=True)
class HostileTitles:
    """Adds to the titles of a `share` of the prompts; `preferences` are those of other users.

    What a prompt gets depends on `seed`, item and preference alone: a run that is resumed sees the
    same, and so does every epoch.
    """

    share: float
    preferences: Sequence[str]
    seed: int

    def shown(self, item: Item, preference: str) -> Item:
        """The item as this user's prompt shows it."""
        if not self.share:
            return item
        draw = Random(f"hostile {self.seed} {item.item_id} {preference}")
        if draw.random() >= self.share:
            return item
        kinds: tuple[Callable[[Random], str], ...] = (_nonsense, _order, self._taste)
        added = " ".join(draw.choice(kinds)(draw) for _ in range(draw.choice((1, 1, 2))))
        at_the_end = draw.random() < AT_THE_END_SHARE
        parts = (item.title, added) if at_the_end else (added, item.title)
        return replace(item, title=" ".join(parts))

    def _taste(self, draw: Random) -> str:
        words = draw.choice(self.preferences).split()
        start = draw.randrange(len(words)) if words and draw.random() < 0.5 else 0
        return " ".join((draw.choice(_TASTE_OPENINGS), *words[start:][:MAX_WORDS])).strip()


UNCHANGED = HostileTitles(0.0, (), 0)


def _nonsense(draw: Random) -> str:
    letters = draw.choice((string.ascii_lowercase, string.ascii_letters, _LETTERS))
    words = (
        "".join(draw.choices(letters, k=draw.randint(1, 9)))
        for _ in range(draw.randint(1, MAX_WORDS))
    )
    return " ".join(words)


def _order(draw: Random) -> str:
    answer = draw.choice((YES, NO)).strip()
    said = (draw.choice(_OPENINGS), draw.choice(_ORDERS), answer, draw.choice(_ENDINGS))
    order = " ".join(filter(None, (*said, answer if draw.random() < 0.3 else "")))
    return draw.choice((str, str.lower, str.upper))(order) * draw.choice((1, 1, 1, 3))
