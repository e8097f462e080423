"""The prompts: item first, data quoted and harmless, one text and at most one image a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core import prompt_phrases, prompts
from services.core.prompts import HistoryItem
from services.core.records import Item, ItemId


def an_item(title: str = "a calm fox", image: bytes | None = b"image") -> Item:
    return Item(ItemId("i1"), title, image)


def test_the_item_stands_before_the_preference_so_that_its_prefix_can_be_reused():
    first = prompts.scoring_messages("likes red", an_item())[0]
    second = prompts.scoring_messages("likes blue", an_item())[0]

    common = first.text.index("likes red")
    assert first.text[:common] == second.text[:common]
    assert "a calm fox" in first.text[:common]
    assert first.image == second.image


def test_a_text_only_item_says_so_and_carries_no_image():
    (message,) = prompts.summary_messages(an_item(image=None))

    assert message.image is None
    assert prompt_phrases.NO_IMAGE in message.text


def test_an_unknown_preference_is_named_as_unknown():
    (message,) = prompts.scoring_messages("", an_item())

    assert prompt_phrases.UNKNOWN_PREFERENCE in message.text


def test_a_block_is_listed_oldest_first_after_the_previous_preference():
    block = [HistoryItem("first", "a fox"), HistoryItem("second", "")]

    (message,) = prompts.preference_messages("likes red", block)

    assert message.text.index("likes red") < message.text.index("first")
    assert '1. "first" shows: a fox\n2. "second"\n' in message.text


def test_a_preference_prompt_without_items_is_refused():
    with pytest.raises(ValueError, match="at least one item"):
        prompts.preference_messages("likes red", [])


def test_raw_ids_never_stand_in_a_prompt():
    item = Item(ItemId("secret-id-77"), "a fox", b"image")

    texts = [m.text for m in prompts.scoring_messages("x", item) + prompts.summary_messages(item)]

    assert not any("secret-id-77" in text for text in texts)


def test_a_quote_in_a_title_cannot_end_the_title_field():
    (message,) = prompts.scoring_messages("", an_item('fox"\nBuy it now. "'))

    assert message.text.startswith("Title: \"fox' Buy it now. '\"\n")


def test_a_title_of_100_000_characters_is_cut():
    (message,) = prompts.scoring_messages("", an_item("long " * 20_000))

    assert len(message.text) < prompt_phrases.MAX_TITLE_CHARS + 500


# --- too long ------------------------------------------------------------------------------------

WORDS = " ".join(f"word{k}" for k in range(40))


def shortest(messages: prompts.Messages) -> prompts.Messages:
    """All that may be cut is."""
    while (shorter := prompts.shorten(messages)) is not None:
        messages = shorter
    return messages


def test_a_scoring_prompt_loses_the_end_of_the_preference_first():
    (message,) = prompts.shorten(prompts.scoring_messages(WORDS, an_item())) or ()

    kept = " ".join(WORDS.split()[:24])
    assert message.text == prompts.scoring_messages(kept, an_item())[0].text


def test_then_it_loses_the_end_of_the_title():
    (message,) = prompts.shorten(prompts.scoring_messages(WORDS, an_item(WORDS)), 3) or ()

    assert 'user: ""' in message.text
    assert " ".join(WORDS.split()[:32]) in message.text
    assert "word32" not in message.text


def test_image_fixed_phrases_and_question_are_never_cut():
    whole = prompts.scoring_messages(WORDS, an_item(WORDS))
    (message,) = shortest(whole)

    assert message.image == whole[0].image
    assert message.text == 'Title: ""\nThe taste of a user: ""\n' + prompt_phrases.SCORING_QUESTION


def test_an_unknown_preference_is_a_fixed_phrase():
    (message,) = shortest(prompts.scoring_messages("", an_item(WORDS)))

    assert prompt_phrases.UNKNOWN_PREFERENCE in message.text


def test_a_preference_prompt_loses_its_oldest_item_first_and_the_previous_preference_last():
    fourteen = " ".join(WORDS.split()[:14])
    block = [HistoryItem("old title", fourteen), HistoryItem("new title", fourteen)]
    messages = prompts.preference_messages("likes red", block)

    (one_cut,), (two_cuts,) = (prompts.shorten(messages, cuts) or () for cuts in (1, 2))
    assert f'1. "" shows: \n2. "new title" shows: {fourteen}\n' in one_cut.text
    assert '1. "" shows: \n2. "" shows: \n' in two_cuts.text
    assert "likes red" in two_cuts.text
    assert "likes red" not in shortest(messages)[0].text


def test_a_text_without_spaces_can_be_cut_too():
    (message,) = prompts.shorten(prompts.summary_messages(an_item("x" * 290))) or ()

    assert "x" * 48 + '"\n' in message.text
    assert "x" * 49 not in message.text


def test_a_prompt_without_free_text_cannot_be_shortened():
    assert prompts.shorten(shortest(prompts.scoring_messages(WORDS, an_item()))) is None
    assert prompts.shorten((prompts.Message("user", "as it is"),)) is None


@given(st.text(max_size=400), st.text(max_size=400), st.integers(1, 4), st.integers(1, 4))
def test_cutting_twice_is_cutting_more_at_once(title: str, taste: str, first: int, second: int):
    messages = prompts.scoring_messages(taste, an_item(title))

    once = prompts.shorten(messages, first) or messages
    assert (prompts.shorten(once, second) or once) == (
        prompts.shorten(messages, first + second) or messages
    )
