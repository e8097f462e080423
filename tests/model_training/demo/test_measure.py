"""Measuring the demo model: a writer that errs is marked down, a perfect one is not."""

from model_training.demo.attributes import VALUES
from model_training.demo.chats import preference_of
from model_training.demo.measure import (
    measure,
    share_named,
    share_of_dominant_named,
    write_preferences,
    write_summaries,
)
from model_training.demo.sentences import preference_sentence, summary_sentence
from model_training.demo.world import DemoWorld
from services.core.prompts import GenerationLimits, Messages


def a_world() -> DemoWorld:
    return DemoWorld(seed=6, num_items=60, num_users=12)


class EchoEngine:
    """Answers with the prompt itself, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Messages] = []

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        self.asked.append(messages)
        return messages[0].text


def test_perfect_summaries_name_every_attribute() -> None:
    truths = [item.attributes for item in a_world().items]
    summaries = [summary_sentence(truth) for truth in truths]

    assert [share_named(summaries, truths, name) for name in VALUES] == [1.0] * 4


def test_a_summary_that_names_two_values_of_an_attribute_is_not_right() -> None:
    truths = [item.attributes for item in a_world().items]
    summaries = [f"{summary_sentence(truth)} Or in red, or in blue." for truth in truths]

    assert share_named(summaries, truths, "palette") == 0.0
    assert share_named(summaries, truths, "mood") == 1.0


def test_preferences_by_the_rule_name_nearly_all_dominant_values_and_anothers_do_not() -> None:
    world = a_world()
    by_rule = [
        preference_sentence(
            preference_of([world.items[choice].attributes for choice in user.choices[:-1]])
        )
        for user in world.users
    ]

    assert share_of_dominant_named(world, by_rule) > 0.97
    assert share_of_dominant_named(world, by_rule[1:] + by_rule[:1]) < 0.7


async def test_summaries_are_asked_with_the_cover_or_from_the_title_alone() -> None:
    engine, world = EchoEngine(), a_world()

    await write_summaries(engine, world, with_covers=True)
    await write_summaries(engine, world, with_covers=False)

    shown = [messages[0].image is not None for messages in engine.asked]
    assert shown == [True] * 60 + [False] * 60


async def test_a_preference_never_sees_the_last_choice() -> None:
    engine, world = EchoEngine(), a_world()

    await write_preferences(engine, world, [f"summary {number}" for number in range(60)])

    texts = " ".join(messages[0].text for messages in engine.asked)
    alone = [user for user in world.users if _only_last(world, user)]
    assert alone
    for user in alone:
        assert world.items[user.choices[-1]].title not in texts


def _only_last(world: DemoWorld, user) -> bool:
    earlier = {choice for other in world.users for choice in other.choices[:-1]}
    return user.choices[-1] not in earlier


async def test_an_engine_that_only_echoes_the_prompt_sees_no_palette() -> None:
    scores = (await measure(EchoEngine(), a_world())).scores

    assert scores["summary_palette"] == 0.0
    assert scores["summary_topic"] == 1.0  # the title says it
