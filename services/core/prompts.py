"""The three prompts, their decoding limits and their fingerprint.

    summary      what one item looks like                 (MLLM-MSR, section 3.1: image summary)
    preference   what a user likes, block after block     (section 3.2: recurrent user preference)
    scoring      will this user take this item next?      (section 3.3: supervised question)

Prompts are chat messages. Only a model's own chat template turns them into tokens. A message has at
most one image and exactly one text, because published LLaVA-NeXT templates put every image
before every text and close the turn after each text part.

The item comes first in the scoring prompt, so that an engine can reuse its KV prefix (over a
thousand image tokens) for every user. Titles, summaries and preferences are data: they are cleaned
(`sanitize_text.py`), capped and quoted before they reach a prompt.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from services.core import prompt_phrases as phrases
from services.core.fingerprint import fingerprint
from services.core.records import Item, ItemId
from services.core.sanitize_text import clean_text


@dataclass(frozen=True, slots=True)
class ItemImage:
    """A prepared image, with the identity under which an engine caches it."""

    item_id: ItemId
    version: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat: at most one image, which comes before the text.

    `free` are the spans (start, end) of titles, summaries and preferences in the text, in the order
    in which they may be cut.
    """

    role: Literal["user", "assistant"]
    text: str
    image: ItemImage | None = None
    free: tuple[tuple[int, int], ...] = ()


Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Tokens are drawn at this temperature from the likeliest ones of share `top_p`."""

    temperature: float
    top_p: float = 1.0

    @property
    def label(self) -> str:
        """As definitions and writers have it: texts of another sampling are not continued."""
        return f"t{self.temperature:g}p{self.top_p:g}"


@dataclass(frozen=True, slots=True)
class GenerationLimits:
    """The longest text a generation may write, and how its tokens are chosen.

    Decoding is greedy unless `sampling` is set. Then the text follows from the prompt and `seed`
    (below 2**31) alone, whatever else the engine computes.
    """

    max_new_tokens: int
    sampling: Sampling | None = None
    seed: int = 0


SUMMARY_LIMITS = GenerationLimits(max_new_tokens=100)
PREFERENCE_LIMITS = GenerationLimits(max_new_tokens=128)


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """An item of the history in a preference prompt; `summary` is "" if there is none."""

    title: str
    summary: str


# --- building messages ---------------------------------------------------------------------------


def summary_messages(item: Item) -> Messages:
    """Ask for a summary of one item, from its image and title, or from the title alone."""
    return (_message([*_item_pieces(item, cut_at=0), _Piece(phrases.SUMMARY_INSTRUCTION)], item),)


def preference_messages(previous: str, block: Sequence[HistoryItem]) -> Messages:
    """Ask for the preference after `block` (oldest first), given the one before it ("" at first).

    The direct variant is the same prompt over the whole history with no previous preference.
    """
    if not block:
        raise ValueError("a preference prompt needs at least one item")
    pieces = [_Piece(phrases.BLOCK_OPENS)]
    if previous:
        # The preference is the newest text about the user, so it is cut last.
        taste = _Piece(clean_text(previous, phrases.MAX_PREFERENCE_CHARS), cut_at=2 * len(block))
        closes = _Piece(phrases.PREFERENCE_CLOSES + phrases.LATER_BLOCK_OPENS)
        pieces = [_Piece(phrases.PREFERENCE_OPENS), taste, closes]
    for index, item in enumerate(block):
        pieces += _history_pieces(index, item)
    return (_message([*pieces, _Piece(phrases.PREFERENCE_INSTRUCTION)]),)


def preference_limits(
    sampling: Sampling | None, *, user_id: str, previous: str, item_ids: Sequence[str]
) -> GenerationLimits:
    """How one text of a user is written. With sampling, its seed is made of what the text follows
    from, so that a history gives one text in any order of arrival, batch and process.
    """
    if sampling is None:
        return PREFERENCE_LIMITS
    facts = "\x00".join((user_id, previous, *item_ids))
    seed = int.from_bytes(hashlib.sha256(facts.encode()).digest()[:4]) >> 1
    return replace(PREFERENCE_LIMITS, sampling=sampling, seed=seed)


def scoring_messages(preference: str, item: Item) -> Messages:
    """Ask whether a user with this preference ("" if unknown) takes the item next."""
    taste = clean_text(preference, phrases.MAX_PREFERENCE_CHARS)
    pieces = [
        *_item_pieces(item, cut_at=1),
        _Piece(phrases.SCORING_PREFERENCE_OPENS),
        _Piece(taste, cut_at=0) if taste else _Piece(phrases.UNKNOWN_PREFERENCE),
        _Piece(phrases.PREFERENCE_CLOSES + phrases.SCORING_QUESTION),
    ]
    return (_message(pieces, item),)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece of a prompt: a fixed phrase, or free text with its place in the cutting order."""

    text: str
    cut_at: int | None = None


def _history_pieces(index: int, item: HistoryItem) -> list[_Piece]:
    title = _Piece(clean_text(item.title, phrases.MAX_TITLE_CHARS), cut_at=2 * index + 1)
    summary = _Piece(clean_text(item.summary, phrases.MAX_SUMMARY_CHARS), cut_at=2 * index)
    opens = _Piece(f'{index + 1}. "')
    if not summary.text:
        # An item without a summary stays in the history with its title.
        return [opens, title, _Piece('"\n')]
    return [opens, title, _Piece(phrases.SUMMARY_OPENS), summary, _Piece("\n")]


def _item_pieces(item: Item, cut_at: int) -> list[_Piece]:
    title = _Piece(clean_text(item.title, phrases.MAX_TITLE_CHARS), cut_at)
    no_image = "" if item.image is not None else phrases.NO_IMAGE
    return [_Piece(phrases.TITLE_OPENS), title, _Piece(phrases.TITLE_CLOSES + no_image)]


def _message(pieces: Sequence[_Piece], item: Item | None = None) -> Message:
    spans: list[tuple[int, int, int]] = []
    start = 0
    for piece in pieces:
        end = start + len(piece.text)
        if piece.cut_at is not None:
            spans.append((piece.cut_at, start, end))
        start = end
    image = None
    if item is not None and item.image is not None:
        image = ItemImage(item.item_id, item.version, item.image)
    free = tuple((start, end) for _, start, end in sorted(spans))
    return Message("user", "".join(piece.text for piece in pieces), image, free)


# --- prompts that are too long -------------------------------------------------------------------

# One step of shortening cuts this much; a dozen steps remove a preference of 1,200 characters.
WORDS_PER_CUT = 16

# Long words count as several, so that texts in scripts without spaces can be cut too.
_WORD = re.compile(r"\s*\S{1,16}")


def shorten(messages: Messages, num_cuts: int = 1) -> Messages | None:
    """The prompt with up to `num_cuts` times WORDS_PER_CUT fewer words, None if there are none.

    Free texts lose words from their ends, one text after the other: in a preference prompt item by
    item, oldest first, the summary before the title, and then the previous preference; in a scoring
    prompt the preference and then the title. Images, fixed phrases and the question stay. Cutting
    twice is the same as cutting two steps at once.
    """
    num_words = num_cuts * WORDS_PER_CUT
    shorter: list[Message] = []
    for message in messages:
        kept, num_words = _cut(message, num_words)
        shorter.append(kept)
    return None if num_words == num_cuts * WORDS_PER_CUT else tuple(shorter)


def _cut(message: Message, num_words: int) -> tuple[Message, int]:
    """The message without up to `num_words` words, and how many of them are left to cut."""
    ends = dict(message.free)
    for start, end in message.free:
        words = [start + word.end() for word in _WORD.finditer(message.text[start:end])]
        num_kept = max(0, len(words) - num_words)
        num_words -= len(words) - num_kept
        ends[start] = words[num_kept - 1] if num_kept else start
    text, moved = "", {}
    position = 0
    for start, end in sorted(message.free):
        text += message.text[position:start]
        moved[start] = (len(text), len(text) + ends[start] - start)
        text += message.text[start : ends[start]]
        position = end
    text += message.text[position:]
    free = tuple(moved[start] for start, _ in message.free)
    return replace(message, text=text, free=free), num_words


# --- fingerprints --------------------------------------------------------------------------------


_PROBE = Item(ItemId("probe"), "probe title")
_PROBE_WITH_IMAGE = Item(ItemId("probe"), "probe title", b"probe picture")
_PROBE_HISTORY = [HistoryItem("probe title", "probe summary")] * 2


def _rendered(messages: Messages) -> list[list[object]]:
    return [[message.role, message.image is not None, message.text] for message in messages]


def _greedy(limits: GenerationLimits) -> dict[str, int]:
    """Sampling is a deployment's choice: it is in the definition of what was sampled."""
    return {"max_new_tokens": limits.max_new_tokens}


# Each fingerprint hashes rendered examples, so it changes with anything that the model sees:
# wording, order, cleaning and limits.
SUMMARY_FINGERPRINT = fingerprint(
    {
        "text_only": _rendered(summary_messages(_PROBE)),
        "picture": _rendered(summary_messages(_PROBE_WITH_IMAGE)),
        "limits": _greedy(SUMMARY_LIMITS),
        "caps": [phrases.MAX_TITLE_CHARS],
    }
)
PREFERENCE_FINGERPRINT = fingerprint(
    {
        "first": _rendered(preference_messages("", _PROBE_HISTORY)),
        "later": _rendered(preference_messages("probe taste", _PROBE_HISTORY)),
        "limits": _greedy(PREFERENCE_LIMITS),
        "caps": [phrases.MAX_TITLE_CHARS, phrases.MAX_SUMMARY_CHARS, phrases.MAX_PREFERENCE_CHARS],
    }
)
SCORING_FINGERPRINT = fingerprint(
    {
        "text_only": _rendered(scoring_messages("probe taste", _PROBE)),
        "picture": _rendered(scoring_messages("probe taste", _PROBE_WITH_IMAGE)),
        "unknown": _rendered(scoring_messages("", _PROBE_WITH_IMAGE)),
        "caps": [phrases.MAX_TITLE_CHARS, phrases.MAX_PREFERENCE_CHARS],
    }
)
