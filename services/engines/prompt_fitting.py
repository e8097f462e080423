"""Shorten a prompt that is too long: find the longest shorter form that the model takes.

`core.prompts.shorten` decides what is cut and in which order; this module finds how much. All
engines use it, so all cut alike. The search doubles and halves: counting the tokens of one form
costs a request to a server, and a history of a hundred items has a thousand forms.
"""

from collections.abc import Awaitable, Callable, Generator

import structlog

from services.core.prompts import Messages, shorten

log = structlog.get_logger(__name__)


def shorten_to_fit(messages: Messages, fits: Callable[[Messages], bool]) -> Messages | None:
    """The longest form that `fits`, or None if nothing is left to cut. `messages` must not fit."""
    search = _search(messages)
    try:
        form = next(search)
        while True:
            form = search.send(fits(form))
    except StopIteration as found:
        return _logged(messages, found.value)


async def shorten_to_fit_remotely(
    messages: Messages, fits: Callable[[Messages], Awaitable[bool]]
) -> Messages | None:
    """`shorten_to_fit` where a server counts the tokens."""
    search = _search(messages)
    try:
        form = next(search)
        while True:
            form = search.send(await fits(form))
    except StopIteration as found:
        return _logged(messages, found.value)


def _search(messages: Messages) -> Generator[Messages, bool, Messages | None]:
    """Yields forms, is sent whether each fits, and returns the longest one that does."""
    too_few, cuts = 0, 1
    if (form := shorten(messages)) is None:
        return None
    while not (yield form):
        if shorten(form) is None:
            return None
        too_few, cuts = cuts, 2 * cuts
        form = shorten(messages, cuts) or form
    while cuts - too_few > 1:
        middle = (too_few + cuts) // 2
        longer = shorten(messages, middle) or form
        if (yield longer):
            cuts, form = middle, longer
        else:
            too_few = middle
    return form


def _logged(messages: Messages, form: Messages | None) -> Messages | None:
    if form is not None:
        log.warning("prompt_shortened", num_chars=_length(messages), num_kept=_length(form))
    return form


def _length(messages: Messages) -> int:
    return sum(len(message.text) for message in messages)
