"""The probe that every engine passes when it is opened: does this model answer our prompts?

A model that cannot take an image, or whose answers are not numbers, is refused here and not row by
row of a batch.
"""

import asyncio
from pathlib import Path

from services.core.errors import AnswerTokenMissing, EngineRefused, ModelUnusable
from services.core.images import blank_image
from services.core.prompts import (
    GenerationLimits,
    HistoryItem,
    preference_messages,
    scoring_messages,
)
from services.core.records import Item, ItemId
from services.core.scoring import answer_margin
from services.engines.contract import Engine
from services.engines.models.families import supported
from services.engines.models.model_files import read_config

_TASTE = "Likes calm things."
_PROBES = {
    "a prompt of text alone": Item(ItemId("probe"), "A calm thing", None),
    "a prompt with an image": Item(ItemId("probe"), "A calm thing", blank_image()),
}


async def probe(engine: Engine, model: str) -> None:
    """Score one prompt with an image and one without.

    Raises ModelUnusable, naming `model`, unless both get finite log-probabilities; what the engine
    raises if it cannot be reached.
    """
    named = await asyncio.to_thread(_describe, model)
    for name, item in _PROBES.items():
        try:
            answer = await engine.score(scoring_messages(_TASTE, item))
            answer_margin(yes=answer.yes, no=answer.no)
        except (EngineRefused, AnswerTokenMissing) as error:
            raise ModelUnusable(
                f"{named} does not answer {name} ({error}); supported are {supported()}"
            ) from error


async def probe_writer(engine: Engine, model: str) -> None:
    """Let the engine begin a text. Raises what `probe` raises."""
    messages = preference_messages("", [HistoryItem("A calm thing", "")])
    try:
        await engine.generate(messages, GenerationLimits(max_new_tokens=1))
    except EngineRefused as error:
        named = await asyncio.to_thread(_describe, model)
        raise ModelUnusable(
            f"{named} writes no text ({error}); name a model that was tuned to follow instructions"
        ) from error


def _describe(model: str) -> str:
    """With its type, if it is a folder; else it may be the name that a server gave it."""
    if not Path(model).is_dir():
        return model
    return f"{model} (model_type {read_config(model).model_type})"
