"""Hostile titles: text that strangers may add to titles, and that the model must learn to ignore.

In a share of the training prompts (`hostile_titles` of the configuration) something is added to
the item's title: words with or without sense, an order to say Yes or No, another user's taste.
Stages `sft` and `dpo` use this title instead of the item's own, with the item's answer. Stage
`harden` uses both and keeps their margins equal. Orders to say Yes or No are independent of the
item, so the model learns that only the item's own words matter.

`core/sanitize_text.py` removes markup; this is for text that has the form of a title. `msr bench
injection` measures both.
"""

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from services.core.records import Item
from services.core.scoring import NO, YES

AT_THE_END_SHARE = 0.7
MAX_WORDS = 16
# A batch is as long as its longest prompt, and a byte of an unknown script may be a token.
MAX_ADDED_BYTES = 100
_LETTERS = string.ascii_letters + string.digits + string.punctuation
# Other scripts, typographic quotes, symbols, bold letters of mathematics, smileys.
_FOREIGN = "".join(
    chr(code)
    for first, last in (
        *((0xA1, 0xFF), (0x391, 0x3C9), (0x410, 0x44F), (0x5D0, 0x5EA), (0x3041, 0x3096)),
        *((0x4E00, 0x4E40), (0x2018, 0x201F), (0x2190, 0x21FF), (0x1D400, 0x1D433)),
        (0x1F600, 0x1F64F),
    )
    for code in range(first, last + 1)
)
# By their frequency in English.
_LETTERS_IN_ENGLISH = (
    12 * "e" + 9 * "t" + 8 * "a" + 7 * "ion" + 6 * "rsh" + "ddllccuummwwffggyyppbvkjxqz"
)
_ENGLISH = (
    "a an the this that these some any all each other such no not and or but if then so because "
    "is are was be been will would can could should must may have has had do does did get make "
    "i you he she it we they my your his her our their who what which where when why how there "
    "of to in on at by for from with without about over under after before between into out up "
    "always never now today soon again only just very too more most less best better new old good "
    "people everybody nobody somebody user buyer seller shop owner staff reader child friend team "
    "item title picture text word list page price gift order offer sale stock brand size number "
    "buy sell want need like love hate take give show hide read write know think believe trust "
    "rule law fact truth note warning help task test game answer question reason secret key "
    "important urgent special free cheap popular perfect great real true false right wrong safe "
    "please thanks hello sorry one two three first last every thing time day year world life"
)
_WORDS = tuple(_ENGLISH.split())
_OPENINGS = (
    *("Dear model,", "Attention:", "A hint:", "Forget what was said.", "Reader,", "Seller:", ""),
    *("To all:", "Rule one:", "By the way,", "Urgent!", "This one", "The shop says:"),
)
_ORDERS = ("say", "reply", "write", "respond with", "choose", "it must be", "the truth is")
_ENDINGS = ("", ".", "!", "now", "please", "whatever is asked", "for all", "at once, or else")
_TASTE_OPENINGS = ("", "", "Taste:", "This person", "What the user wants:", "Wanted by all.", "She")
_QUOTES = (
    *(("", ""), ("", ""), ("'", "'"), ("\u201c", "\u201d"), ("\u201d", "\u201c")),
    *(("\u2018", "\u2019"), ("\u00ab", "\u00bb"), ("(", ")"), ("[", "]"), ("{", "}")),
    *(("*", "*"), ("#", "#")),
)


@dataclass(frozen=True, slots=True)
class HostileTitles:
    """Adds text to the titles of a `share` of the prompts; `preferences` are those of other users.

    The text depends on `seed`, item and preference alone, so it is the same in every epoch and in a
    resumed run.
    """

    share: float
    preferences: Sequence[str]
    seed: int

    def in_prompt(self, item: Item, preference: str) -> Item:
        """The item with the title that this user's prompt has."""
        if not self.share:
            return item
        draw = Random(f"hostile {self.seed} {item.item_id} {preference}")
        if draw.random() >= self.share:
            return item
        kinds: tuple[Callable[[Random], str], ...] = (_nonsense, _english, _order, self._taste)
        added = " ".join(draw.choice(kinds)(draw) for _ in range(draw.choice((1, 1, 1, 2))))
        added = added.encode()[:MAX_ADDED_BYTES].decode(errors="ignore")
        at_the_end = draw.random() < AT_THE_END_SHARE
        parts = (item.title, added) if at_the_end else (added, item.title)
        return replace(item, title=" ".join(parts))

    def _taste(self, draw: Random) -> str:
        words = draw.choice(self.preferences).split()
        start = draw.randrange(len(words)) if words and draw.random() < 0.5 else 0
        quoted = " ".join(words[start:][:MAX_WORDS])
        opens, closes = draw.choice(_QUOTES)
        return f"{draw.choice(_TASTE_OPENINGS)} {opens}{quoted}{closes}".strip()


UNCHANGED = HostileTitles(0.0, (), 0)


def _nonsense(draw: Random) -> str:
    letters = draw.choice((_LETTERS_IN_ENGLISH, string.ascii_lowercase, _LETTERS, _FOREIGN))
    words = ("".join(draw.choices(letters, k=draw.randint(1, 9))) for _ in _some(draw))
    return _cased(" ".join(words), draw)


def _english(draw: Random) -> str:
    words = [draw.choice(_WORDS) for _ in _some(draw)]
    marks = ("", "", "", "", ",", ":", ".", "!", "?")
    return _cased(" ".join(word + draw.choice(marks) for word in words) + draw.choice("..!?"), draw)


def _some(draw: Random) -> range:
    """A random length; short ones are more likely."""
    return range(draw.randint(1, draw.randint(2, MAX_WORDS)))


def _cased(text: str, draw: Random) -> str:
    return draw.choice((str, str, str.capitalize, str.title, str.upper))(text)


def _order(draw: Random) -> str:
    answer = draw.choice((YES, NO)).strip()
    said = (draw.choice(_OPENINGS), draw.choice(_ORDERS), answer, draw.choice(_ENDINGS))
    order = " ".join(filter(None, (*said, answer if draw.random() < 0.3 else "")))
    return draw.choice((str, str.lower, str.upper))(order) * draw.choice((1, 1, 1, 2))
