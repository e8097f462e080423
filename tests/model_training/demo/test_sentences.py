"""The rule behind a preference, and that its text is the whole state."""

from random import Random

import pytest

from model_training.demo.attributes import Attributes
from model_training.demo.chats import preference_of
from model_training.demo.sentences import (
    Liking,
    dominant_values,
    named_values,
    parse_preference,
    preference_sentence,
    summary_sentence,
    updated_preference,
)
from model_training.demo.world import DemoWorld, draw_taste


def an_item(
    palette: str = "red",
    topic: str = "star",
    style: str = "flat",
    mood: str = "calm",
) -> Attributes:
    return Attributes(palette, topic, style, mood)


def test_a_summary_names_all_four_attributes() -> None:
    summary = summary_sentence(an_item("blue", "boat", "dotted", "brave"))

    assert summary == "A blue boat in dotted style, with a brave mood."


def test_a_summary_without_a_cover_names_only_what_the_title_tells() -> None:
    assert summary_sentence(an_item().seen(cover=False)) == "A star with a calm mood."


def test_a_cover_under_an_unfamiliar_title_is_described_without_a_mood() -> None:
    assert summary_sentence(an_item(mood="")) == "A red star in flat style."


def test_an_item_of_which_nothing_is_known_still_gets_a_summary_and_a_preference() -> None:
    unknown = Attributes()

    assert summary_sentence(unknown) == "Something unfamiliar."
    assert preference_sentence(updated_preference({}, [unknown])) == "Nothing familiar yet."


def test_a_value_that_two_items_of_a_block_share_becomes_current_and_the_old_one_earlier() -> None:
    before = {"palette": Liking("red")}

    after = updated_preference(before, [an_item("blue"), an_item("green"), an_item("blue")])

    assert after["palette"] == Liking("blue", earlier="red")


def test_a_value_that_one_item_shows_changes_nothing() -> None:
    before = {"palette": Liking("red", earlier="gray")}

    after = updated_preference(before, [an_item("blue"), an_item("green"), an_item("purple")])

    assert after["palette"] == Liking("red", earlier="gray")


def test_at_the_beginning_the_latest_of_equally_frequent_values_becomes_current() -> None:
    after = updated_preference({}, [an_item("blue"), an_item("green")])

    assert after["palette"] == Liking("green")


def test_items_without_a_cover_leave_palette_and_style_as_they_were() -> None:
    after = updated_preference({"style": Liking("dotted")}, [an_item(None, style=None)] * 3)

    assert after["style"] == Liking("dotted")
    assert "palette" not in after


def test_a_preference_names_what_prevails_and_what_prevailed_before() -> None:
    preference = {
        "palette": Liking("red", earlier="blue"),
        "topic": Liking("star", earlier="cup"),
        "style": Liking("striped"),
        "mood": Liking("calm", earlier="brave"),
    }

    assert preference_sentence(preference) == (
        "Likes red colors (before: blue), stars (before: cups), striped style "
        "and a calm mood (before: brave)."
    )


def test_the_text_of_a_preference_is_the_whole_state() -> None:
    rng = Random(4)
    for length in range(1, 40):
        items = [draw_taste(rng) for _ in range(length)]
        shown = [item if rng.random() < 0.7 else item.seen(cover=False) for item in items]
        preference = preference_of(shown)

        assert parse_preference(preference_sentence(preference)) == preference


@pytest.mark.parametrize("text", ["", "Likes nothing.", "Likes pink colors and loud style."])
def test_a_text_that_names_no_value_of_ours_parses_to_an_empty_preference(text: str) -> None:
    assert parse_preference(text) == {}


def test_only_a_value_of_more_than_half_of_the_items_is_dominant() -> None:
    history = [an_item("red"), an_item("red"), an_item("blue"), an_item("green", mood="brave")]

    assert dominant_values(history) == {"topic": "star", "style": "flat", "mood": "calm"}


def test_values_are_found_in_singular_and_plural_but_not_inside_other_words() -> None:
    assert named_values("Likes stars; starving cups", "topic") == {"star", "cup"}


def test_the_rule_names_nearly_every_dominant_value_of_a_demo_history() -> None:
    world = DemoWorld(seed=8, num_items=480, num_users=150)
    named = []
    for user in world.users:
        history = [world.items[choice].attributes for choice in user.choices[:-1]]
        text = preference_sentence(preference_of(history))
        named += [value in named_values(text, n) for n, value in dominant_values(history).items()]

    assert sum(named) / len(named) >= 0.98
