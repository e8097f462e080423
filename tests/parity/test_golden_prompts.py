"""Drift lock: the three prompts, word for word, as `tests/golden/prompts.txt` has them.

A change here means new summaries, new preferences and new training. If it is wanted, write the file
again with `python -m tests.parity.test_golden_prompts`.
"""

from pathlib import Path

from services.core import prompt_phrases, prompts
from services.core.prompts import HistoryItem, Messages
from services.core.records import Item, ItemId

GOLDEN = Path(__file__).parent.parent / "golden" / "prompts.txt"

WITH_IMAGE = Item(ItemId("i1"), "A calm fox", b"picture")
TEXT_ONLY = Item(ItemId("i2"), "A loud boat")
BLOCK = [HistoryItem("A calm fox", "A red fox in dots."), HistoryItem("A loud boat", "")]
CASES = {
    "summary of an item with a picture": prompts.summary_messages(WITH_IMAGE),
    "summary of a text-only item": prompts.summary_messages(TEXT_ONLY),
    "preference, first block": prompts.preference_messages("", BLOCK),
    "preference, later block": prompts.preference_messages("Likes red.", BLOCK),
    "scoring": prompts.scoring_messages("Likes red.", WITH_IMAGE),
    "scoring, text-only item, unknown user": prompts.scoring_messages("", TEXT_ONLY),
}


def shown(name: str, messages: Messages) -> str:
    turns = "".join(
        f"[{message.role}]{' <picture>' if message.image else ''}\n{message.text}\n"
        for message in messages
    )
    return f"=== {name}\n{turns}"


def render() -> str:
    return "\n".join(shown(name, messages) for name, messages in CASES.items())


def test_the_prompts_are_word_for_word_the_golden_ones():
    assert render() == GOLDEN.read_text(encoding="utf-8")


def test_fixed_phrases_cover_what_every_prompt_repeats():
    rendered = render()

    assert all(phrase in rendered for phrase in prompt_phrases.FIXED_PHRASES)


if __name__ == "__main__":
    GOLDEN.write_text(render(), encoding="utf-8")
