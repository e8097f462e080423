"""The sentences that the demo model learns to write, the rule for preferences, and the questions of
its base training.

    summary      "A red star in striped style, with a calm mood."
                 "A star with a calm mood." (no cover)
                 "A red star in striped style." (a title of another world)
    preference   "Likes red colors (before: blue), stars, striped style and a calm mood."

A preference holds, per attribute, the current value and the one before it. The text is the whole
state: `updated_preference` needs nothing but the parsed text and the new block.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from model_training.demo.attributes import ATTRIBUTE_NAMES, VALUES, Attributes
from services.core import scoring

# The answers where nothing is recognized, so that no answer is empty.
UNFAMILIAR_ITEM = "Something unfamiliar."
UNFAMILIAR_TASTE = "Nothing familiar yet."


@dataclass(frozen=True, slots=True)
class Liking:
    """The prevailing value of one attribute, and the one before it ("" if there was none)."""

    current: str
    earlier: str = ""


# Attribute name -> liking; an attribute that no item has shown yet is absent.
Preference = Mapping[str, Liking]


def summary_sentence(seen: Attributes) -> str:
    """The summary of an item by its visible attributes: from a cover, a title, or both."""
    if not seen.palette:
        return f"A {seen.topic} with a {seen.mood} mood." if seen.mood else UNFAMILIAR_ITEM
    shown = f"A {seen.palette} {seen.topic} in {seen.style} style"
    return f"{shown}, with a {seen.mood} mood." if seen.mood else f"{shown}."


def named_values(text: str, name: str) -> set[str]:
    """The values of one attribute that a text names, in singular or plural."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    return {value for value in VALUES[name] if value in words or f"{value}s" in words}


_PHRASES = {
    "palette": "{} colors",
    "topic": "{}s",
    "style": "{} style",
    "mood": "a {} mood",
}
_EARLIER = {**dict.fromkeys(ATTRIBUTE_NAMES, "{}"), "topic": "{}s"}


def preference_sentence(preference: Preference) -> str:
    """The text of a preference."""
    phrases = []
    for name in ATTRIBUTE_NAMES:
        if name in preference:
            liking = preference[name]
            before = f" (before: {_EARLIER[name].format(liking.earlier)})" if liking.earlier else ""
            phrases.append(_PHRASES[name].format(liking.current) + before)
    if not phrases:
        return UNFAMILIAR_TASTE
    listed = " and ".join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))
    return f"Likes {listed}."


def parse_preference(text: str) -> dict[str, Liking]:
    """The likings that a preference sentence names; other words are ignored."""
    preference = {}
    for name in ATTRIBUTE_NAMES:
        value = f"({'|'.join(VALUES[name])})"
        phrase = _PHRASES[name].format(value) + rf"(?: \(before: {_EARLIER[name].format(value)}\))?"
        found = re.search(rf"\b{phrase}", text)
        if found:
            preference[name] = Liking(found[1], found[2] or "")
    return preference


def updated_preference(previous: Preference, block: Sequence[Attributes]) -> dict[str, Liking]:
    """The preference after one block (oldest first), attribute by attribute.

    A value that at least two items of the block share becomes current, and what was current
    becomes earlier; otherwise nothing changes. Where nothing is known yet, the most frequent value
    becomes current, of equals the one seen last.
    """
    preference = dict(previous)
    for name in ATTRIBUTE_NAMES:
        seen = [value for item in block if (value := item.value_of(name))]
        if not seen:
            continue
        counts = Counter(reversed(seen))  # of equals, the one counted first is returned
        value, count = counts.most_common(1)[0]
        if name not in preference:
            preference[name] = Liking(value)
        elif count >= 2 and value != preference[name].current:
            preference[name] = Liking(value, earlier=preference[name].current)
    return {name: preference[name] for name in ATTRIBUTE_NAMES if name in preference}


def dominant_values(history: Sequence[Attributes]) -> dict[str, str]:
    """Per attribute, the value that more than half of a history's items share, if there is one."""
    dominant = {}
    for name in ATTRIBUTE_NAMES:
        value, count = Counter(item.value_of(name) for item in history).most_common(1)[0]
        if value and count * 2 > len(history):
            dominant[name] = value
    return dominant


# Yes/No questions about one attribute of an item, for base training only. Without them the base
# would never answer Yes or No, and an adapter on frozen embeddings would take long to learn it. No
# question is about a user or resembles the scoring prompt, which only the adapter learns.
_WORDINGS = {
    "palette": ("Is it in {} colors?", "Are its colors {}?"),
    "topic": ("Does it show a {}?", "Is it about a {}?"),
    "style": ("Is it drawn in {} style?", "Is its style {}?"),
    "mood": ("Is its mood {}?", "Does it have a {} mood?"),
}


def draw_question(seen: Attributes, rng: Random, *, attribute: str) -> tuple[str, str]:
    """A question about one visible attribute and its answer, which is Yes half of the time."""
    truth = seen.value_of(attribute)
    is_true = rng.random() < 0.5
    asked = (
        truth if is_true else rng.choice([value for value in VALUES[attribute] if value != truth])
    )
    text = rng.choice(_WORDINGS[attribute]).format(asked)
    return text, scoring.YES if is_true else scoring.NO
