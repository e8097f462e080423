"""How far a prompt is shortened: as little as it needs, found in few looks."""

from services.core.prompts import WORDS_PER_CUT, Message, Messages
from services.engines.prompt_fitting import shorten_to_fit, shorten_to_fit_remotely


def a_prompt(num_words: int) -> Messages:
    text = " ".join(["word"] * num_words)
    return (Message("user", f"{text} question?", free=((0, len(text)),)),)


def num_words(messages: Messages) -> int:
    return len(messages[0].text.split()) - 1


def test_the_longest_form_that_fits_is_found():
    for limit in range(0, 640, 7):
        shorter = shorten_to_fit(a_prompt(640), lambda form, limit=limit: num_words(form) <= limit)

        assert shorter is not None
        assert num_words(shorter) == limit // WORDS_PER_CUT * WORDS_PER_CUT


def test_a_history_of_thousands_of_words_takes_few_looks():
    looks: list[int] = []

    def fits(form: Messages) -> bool:
        looks.append(num_words(form))
        return looks[-1] <= 1000

    assert shorten_to_fit(a_prompt(20_000), fits) is not None
    assert len(looks) <= 22


def test_a_prompt_that_never_fits_is_none():
    assert shorten_to_fit(a_prompt(100), lambda _: False) is None


def test_a_prompt_with_nothing_to_cut_is_none():
    assert shorten_to_fit((Message("user", "as it is"),), lambda _: True) is None


async def test_asking_a_server_finds_the_same_form():
    async def fits(form: Messages) -> bool:
        return num_words(form) <= 200

    asked = await shorten_to_fit_remotely(a_prompt(640), fits)
    assert asked == shorten_to_fit(a_prompt(640), lambda form: num_words(form) <= 200)
