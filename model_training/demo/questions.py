"""Yes/No questions about one attribute of an item, for base training only.

Without them the base would never answer Yes or No, and an adapter on frozen embeddings would take
long to learn it. No question is about a user or resembles the scoring prompt, which only the
adapter learns.
"""

from random import Random

from model_training.demo.attributes import VALUES, Attributes
from services.core import scoring

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
