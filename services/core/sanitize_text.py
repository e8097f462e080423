"""Cleans titles, summaries and preferences before they enter a prompt: they are data.

Anybody may write them, so they hold no markup, no phrase of ours and no order to the model.
"""

import re
import unicodedata

from services.core.prompt_phrases import FIXED_PHRASES

# Role, image and end markers of chat templates in any spelling: those of LLaVA-NeXT's Mistral and
# Vicuna, of Llama, ChatML, Gemma, Mistral's later models and others, and tags of any kind, which a
# title does not need.
# "USER:" and "ASSISTANT:" are Vicuna's; inside a word only their upper-case form is a marker.
_MARKUP = re.compile(
    r"(?i:\[\s*\\?/?\s*I\s*N\s*S\s*T\s*\])"
    r"|\[/?(?:IMG(?:_BREAK|_END)?|SYSTEM_PROMPT|TOOL_(?:CALLS|RESULTS|CONTENT)|AVAILABLE_TOOLS"
    r"|PREFIX|MIDDLE|SUFFIX|ARGS|CALL_ID|THINK|AUDIO|BEGIN_AUDIO)\]"
    r"|<<\s*/?\s*SYS\s*>>"
    r"|<\|[^<>|]{0,40}\|>(?:\s*(?:assistant|user|system|model)\b)?"
    r"|<(?:start|end)_of_turn>(?:\s*(?:user|model)\b)?"
    r"|['\"]role['\"]\s*:\s*['\"]\w+['\"]"
    r"|<\s*/?\s*\\?\s*(?:s|image|unk|pad|bos|eos|eot)\s*/?\s*>"
    r"|<[/!?]?[A-Za-z_][^<>]{0,60}>"
    r"|(?:USER|ASSISTANT|SYSTEM)\s*:"
)

# A prompt's own sentences, so that no text can repeat the question or open another field.
_OWN_PHRASES = re.compile(
    "|".join(
        re.escape(phrase)
        for phrase in sorted((each.strip(' "\n') for each in FIXED_PHRASES), key=len, reverse=True)
        if " " in phrase
    ),
    re.IGNORECASE,
)

# Orders to answer Yes or to ignore instructions address the model and do not describe the item. (An
# order to answer No harms only its own item.) Of the 19,220 titles of MicroLens-50k, 2 hold one.
# The adapter learns to ignore the rest of such a sentence (`hostile_titles` of training).
_ORDERS = re.compile(
    r"\b(?:answer|respon[ds]|repl[yi]|output)\w*\b[^.!?\w]{0,4}(?:\w+\W{1,3}){0,4}?yes\b\W*"
    r"|\b(?:ignor|disregard|forget|overrid)\w*\b(?:\W{1,3}\w+){0,5}?"
    r"(?:\W{1,3}(?:instruction|prompt|rule|previous|above|taste|preference|system)\w*)+"
    r"|\b(?:user|assistant)\s*:",
    re.IGNORECASE,
)

# The same words again and again, over more than a line: they flood the prompt.
_REPEATED = re.compile(r"(.{8,100}?)\1{3,}")
_FLOOD_CHARS = 100

_HARMFUL = (_MARKUP, _OWN_PHRASES, _ORDERS)

# Real letters have up to three marks; more of them attack the renderer.
_MAX_MARKS = 4
# Invisible characters that Unicode calls letters or marks: fillers and joiners.
_SHOWS_NOTHING = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
_SPACES = re.compile(r"\s+")


def clean_text(text: str, max_chars: int) -> str:
    """One line of plain text of at most `max_chars` characters.

    It has no control or invisible characters, no model markup, no phrase of our prompts, no order
    to the model and no quote that ends a field. Cleaning a clean text changes nothing.
    """
    # A long text is cut before the costlier passes, which only make it shorter.
    text = text[: 4 * max_chars]
    previous = None
    while previous != text:  # removing one marker can join two halves of another
        previous, text = text, _clean_once(text)
    return text[:max_chars].rstrip()


def _clean_once(text: str) -> str:
    text = _without_invisible(unicodedata.normalize("NFC", text))
    if not text.isascii():
        # Markers in full-width or bold letters count too; other such letters stay.
        folded = unicodedata.normalize("NFKC", text)
        if any(harmful.search(folded) for harmful in _HARMFUL):
            text = folded
    text = text.replace('"', "'")
    for harmful in _HARMFUL:
        text = harmful.sub(" ", text)
    if len(text) >= _FLOOD_CHARS:
        text = _REPEATED.sub(_once_if_flooding, text)
    return _SPACES.sub(" ", text).strip()


def _once_if_flooding(repeated: re.Match[str]) -> str:
    floods = len(repeated[0]) >= _FLOOD_CHARS and " " in repeated[1]
    return repeated[1] if floods else repeated[0]


def _without_invisible(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    kept: list[str] = []
    num_marks = 0
    before = "Zs"
    for character in text:
        category = unicodedata.category(character)
        num_marks = num_marks + 1 if category[0] == "M" else 0
        # A variation selector chooses how a symbol (an emoji) looks; after a letter it is hidden.
        hides = character in _SHOWS_NOTHING or (
            _is_variation_selector(character) and before[0] in "LM"
        )
        if character.isspace():
            kept.append(" ")
        elif category[0] != "C" and num_marks <= _MAX_MARKS and not hides:
            kept.append(character)
        before = category
    return "".join(kept)


def _is_variation_selector(character: str) -> bool:
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"
