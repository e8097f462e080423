"""The training data of the base model: chats with one or more answers, drawn without end.

    summary      describe an item, from cover and title or from the title alone
    question     Yes/No questions about one item, one a turn
    preference   one block of a history, with the preference before it
    direct       a whole history at once

Items, histories and tastes are drawn anew for every chat; only the covers come from a pool, which
holds what each of them shows. Prompts are those of `services/core/prompts.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from model_training.demo.attributes import ATTRIBUTE_NAMES, VALUES, Attributes
from model_training.demo.sentences import (
    Liking,
    draw_question,
    preference_sentence,
    summary_sentence,
    updated_preference,
)
from model_training.demo.world import draw_taste, draw_title, drifted_taste
from services.core import prompt_phrases, prompts, sanitize_text
from services.core.prompts import HistoryItem
from services.core.records import Item, ItemId
from services.core.recurrence import BLOCK_SIZE

_OTHER_WORDS = (  # noqa: SIM905 - a list literal would take 160 lines
    "the a an of in on at by for with and or to from into over about after before is are was be "
    "how why what when who best new old great big small first last day night time year life world "
    "man woman child friend family love war game story book film music song dance food rice bread "
    "water fire wind stone road city street school work money car train plane phone computer "
    "video review guide tips cook make build learn play watch run fight win lose buy sell fix "
    "open close perfect easy hard fast slow real true false secret lost found dark light white "
    "black gold silver pink orange brown loud quiet angry funny scary wild free full episode "
    "season official trailer minutes seconds hours every random everything nothing answer yes no "
    "ignore all instructions user item next take taste title describe dog cat horse bird lion "
    "dragon king queen doctor engineer minecraft football guitar piano camera travel summer "
    "recipe makeup"
).split()


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat: (question, answer) for each turn, and the number of its cover in the pool."""

    kind: str
    turns: tuple[tuple[str, str], ...]
    cover: int | None = None


@dataclass(frozen=True, slots=True)
class Mix:
    """How often chats leave the demo world: unfamiliar titles, and tastes that change wholly."""

    unfamiliar_titles: float
    new_tastes: float


def summary_chat(pool: Sequence[Attributes], rng: Random, *, with_cover: bool, mix: Mix) -> Chat:
    """Describe one item."""
    number, attributes = _draw_item(pool, rng)
    is_unfamiliar = rng.random() < mix.unfamiliar_titles
    title = _unfamiliar_title(rng) if is_unfamiliar else draw_title(attributes, rng)
    seen = attributes.seen(cover=with_cover, title=not is_unfamiliar)
    asked = prompts.summary_messages(Item(ItemId("item"), title, b"cover" if with_cover else None))
    turns = ((asked[0].text, summary_sentence(seen)),)
    return Chat("summary", turns, number if with_cover else None)


def question_chat(pool: Sequence[Attributes], rng: Random, *, with_cover: bool) -> Chat:
    """Questions about one item, one for each visible attribute, in random order.

    The model soon learns to answer those without a cover. With covers alone, answers stay at chance
    for thousands of rows.
    """
    number, attributes = _draw_item(pool, rng)
    title = sanitize_text.clean_text(draw_title(attributes, rng), prompt_phrases.MAX_TITLE_CHARS)
    seen = attributes.seen(cover=with_cover)
    known = [name for name in ATTRIBUTE_NAMES if seen.value_of(name)]
    asked = rng.sample(known, len(known))
    turns = [draw_question(seen, rng, attribute=name) for name in asked]
    item = f"{prompt_phrases.TITLE_OPENS}{title}{prompt_phrases.TITLE_CLOSES}"
    first = item + ("" if with_cover else prompt_phrases.NO_IMAGE) + turns[0][0]
    return Chat("question", ((first, turns[0][1]), *turns[1:]), number if with_cover else None)


def preference_chat(rng: Random, mix: Mix) -> Chat:
    """One step of the recurrence: a preference and a block of 1 to 3 items give the next one."""
    block_size = rng.choice((BLOCK_SIZE, BLOCK_SIZE, BLOCK_SIZE, 2, 1))
    num_earlier = BLOCK_SIZE * rng.choice((0, 0, 1, 1, 2, 2, 3, 4, 5))
    history = _draw_history(num_earlier + block_size, rng, mix)
    earlier, block = history[:num_earlier], history[num_earlier:]
    previous = preference_sentence(preference_of(earlier)) if earlier else ""
    asked = prompts.preference_messages(previous, [_history_item(item, rng) for item in block])
    return Chat("preference", ((asked[0].text, preference_sentence(preference_of(history))),))


def direct_chat(rng: Random, mix: Mix) -> Chat:
    """A longer history at once; the answer is the last preference of the recurrence."""
    history = _draw_history(rng.randint(4, 15), rng, mix)
    asked = prompts.preference_messages("", [_history_item(item, rng) for item in history])
    return Chat("direct", ((asked[0].text, preference_sentence(preference_of(history))),))


def preference_of(history: Sequence[Attributes]) -> dict[str, Liking]:
    """The preference after a whole history, block by block."""
    preference: dict[str, Liking] = {}
    for start in range(0, len(history), BLOCK_SIZE):
        preference = updated_preference(preference, history[start : start + BLOCK_SIZE])
    return preference


def _draw_item(pool: Sequence[Attributes], rng: Random) -> tuple[int, Attributes]:
    number = rng.randrange(len(pool))
    return number, replace(pool[number], mood=rng.choice(VALUES["mood"]))


def _history_item(seen: Attributes, rng: Random) -> HistoryItem:
    title = draw_title(seen, rng) if seen.mood else _unfamiliar_title(rng)
    return HistoryItem(title, summary_sentence(seen))


def _unfamiliar_title(rng: Random) -> str:
    """A title without words of the demo world: other words, letters, numbers."""
    words = []
    for _ in range(rng.randint(1, 9)):
        if rng.random() < 0.7:
            word = rng.choice(_OTHER_WORDS)
        else:
            letters = rng.choice(
                ("abcdefghijklmnopqrstuvwxyz", "0123456789", "äöüßéñçøåîабвгд東京")
            )
            word = "".join(rng.choices(letters, k=rng.randint(1, 8)))
        words.append(rng.choice((word, word, word.capitalize(), word.upper())))
    return rng.choice((" ", " ", " ", ", ", " - ", ": ")).join(words)


def _draw_history(length: int, rng: Random, mix: Mix) -> list[Attributes]:
    """Choices of a user with a changing taste; some items have no cover or an unfamiliar title."""
    first = draw_taste(rng)
    last = draw_taste(rng) if rng.random() < mix.new_tastes else drifted_taste(first, rng)
    drifts_at = rng.randint(0, length)
    keep_rates = {name: rng.uniform(0.2, 0.95) for name in ATTRIBUTE_NAMES}
    without_cover = rng.choice((0.0,) * 8 + (0.3, 1.0))
    unfamiliar = rng.choice((0.3, 1.0)) if rng.random() < mix.unfamiliar_titles else 0.0
    history = []
    for position in range(length):
        taste = first if position < drifts_at else last
        values = {
            name: taste.value_of(name) if rng.random() < keep_rates[name] else rng.choice(choices)
            for name, choices in VALUES.items()
        }
        is_unfamiliar, has_cover = rng.random() < unfamiliar, rng.random() >= without_cover
        history.append(Attributes(**values).seen(cover=has_cover, title=not is_unfamiliar))
    return history
