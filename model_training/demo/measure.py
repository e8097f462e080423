"""Measures the summaries and preferences that the demo model writes, on an unseen world.

python -m model_training.demo.measure --model model_training/demo/weights/base

summary      share of items whose summary names exactly the true value, attribute by attribute
preference   share of the dominant values of a history (shared by more than half of its items)
             that the preference names; the model writes it block by block, from its own summaries
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass

from model_training.demo.attributes import ATTRIBUTE_NAMES, Attributes
from model_training.demo.sentences import dominant_values, named_values
from model_training.demo.world import DEMO_SEED, IMAGE_SIZE, NUM_ITEMS, NUM_USERS, DemoWorld
from services.core.images import prepare_image
from services.core.prompts import (
    PREFERENCE_LIMITS,
    SUMMARY_LIMITS,
    HistoryItem,
    preference_messages,
    summary_messages,
)
from services.core.records import Item, ItemId
from services.core.recurrence import PreferenceState, advance, current_preference
from services.core.splits import leave_last_out
from services.engines.contract import Engine
from services.engines.local.engine import LocalEngine


@dataclass(frozen=True, slots=True)
class Measured:
    """The texts that the model wrote, and the shares of correct ones."""

    summaries: list[str]
    preferences: list[str]
    scores: dict[str, float]


async def measure(engine: Engine, world: DemoWorld) -> Measured:
    """Let the model write all summaries and preferences of a world, and score them."""
    summaries = await write_summaries(engine, world, with_covers=True)
    from_titles = await write_summaries(engine, world, with_covers=False)
    preferences = await write_preferences(engine, world, summaries)
    truths = [item.attributes for item in world.items]
    scores = {f"summary_{name}": share_named(summaries, truths, name) for name in ATTRIBUTE_NAMES}
    scores |= {
        f"title_only_summary_{name}": share_named(from_titles, truths, name)
        for name in ("topic", "mood")
    }
    scores["preference_dominant"] = share_of_dominant_named(world, preferences)
    return Measured(summaries, preferences, scores)


async def write_summaries(engine: Engine, world: DemoWorld, *, with_covers: bool) -> list[str]:
    """Summaries in the order of the world's items."""
    items = [
        Item(
            ItemId(item.item_id),
            item.title,
            prepare_image(item.cover_png(), IMAGE_SIZE) if with_covers else None,
        )
        for item in world.items
    ]
    return await asyncio.gather(
        *(engine.generate(summary_messages(item), SUMMARY_LIMITS) for item in items)
    )


async def write_preferences(
    engine: Engine, world: DemoWorld, summaries: Sequence[str]
) -> list[str]:
    """The preference before each user's last choice, in the order of the world's users."""

    async def write(previous: str, block: Sequence[int]) -> str:
        shown = [HistoryItem(world.items[choice].title, summaries[choice]) for choice in block]
        return await engine.generate(preference_messages(previous, shown), PREFERENCE_LIMITS)

    async def of_user(choices: Sequence[int]) -> str:
        history, _ = leave_last_out(choices)
        state: PreferenceState[int] = PreferenceState()
        return await current_preference(await advance(state, history, write=write), write=write)

    return await asyncio.gather(*(of_user(user.choices) for user in world.users))


def share_named(texts: Sequence[str], truths: Sequence[Attributes], name: str) -> float:
    """How many texts name the true value of one attribute and no other value of it."""
    right = [
        named_values(text, name) == {truth.value_of(name)}
        for text, truth in zip(texts, truths, strict=True)
    ]
    return sum(right) / len(right)


def share_of_dominant_named(world: DemoWorld, preferences: Sequence[str]) -> float:
    """How many dominant values, over all users and attributes, their preferences name."""
    named = []
    for user, preference in zip(world.users, preferences, strict=True):
        history, _ = leave_last_out(user.choices)
        dominant = dominant_values([world.items[choice].attributes for choice in history])
        named += [value in named_values(preference, name) for name, value in dominant.items()]
    return sum(named) / len(named)


async def measure_checkpoint(model: str, world: DemoWorld) -> Measured:
    """`measure` of the model in this folder."""
    engine = LocalEngine.load(model)
    try:
        return await measure(engine, world)
    finally:
        await engine.close()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--seed", type=int, default=DEMO_SEED)
    arguments.add_argument("--items", type=int, default=NUM_ITEMS)
    arguments.add_argument("--users", type=int, default=NUM_USERS)
    given = arguments.parse_args()
    chosen = DemoWorld(given.seed, given.items, given.users)
    measured = asyncio.run(measure_checkpoint(given.model, chosen))
    for text in (*measured.summaries[:4], *measured.preferences[:4]):
        print(text)
    print(json.dumps({name: round(score, 4) for name, score in measured.scores.items()}))
