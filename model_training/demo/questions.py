"""Yes/No questions about one attribute of an item, for base training only.

Without them Yes and No would be words that the base never answers with, and an adapter on frozen
embeddings takes long to revive them. Nothing here asks about a user or looks like the scoring
prompt: that one is left to the adapter.
"""

from dataclasses import dataclass
from random import Random

from model_training.demo.attributes import VALUES, Attributes
from services.core import scoring

_WORDINGS = {
    "palette": ("Is it in {} colors?", "Are its colors {}?"),
    "topic": ("Does it show a {}?", "Is it about a {}?"),
    "style": ("Is it drawn in {} style?", "Is its style {}?"),
    "mood": ("Is its mood {}?", "Does it have a {} mood?"),
}


@dataclass(frozen=True, slots=True)
class Question:
    """One question and its answer."""

    text: str
    answer: str


def draw_question(seen: Attributes, rng: Random, *, attribute: str) -> Question:
    """A question about one attribute that is known, answered Yes half of the time."""
    truth = seen.value_of(attribute)
    is_true = rng.random() < 0.5
    asked = (
        truth if is_true else rng.choice([value for value in VALUES[attribute] if value != truth])
    )
    text = rng.choice(_WORDINGS[attribute]).format(asked)
    return Question(text, scoring.YES if is_true else scoring.NO)
