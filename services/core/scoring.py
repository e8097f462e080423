"""What a score is: answer words, answer tokens, margin and probability.

    margin = logprob(Yes) - logprob(No)        P(Yes) = sigmoid(slope x margin + intercept)

Slope and intercept are the adapter's calibration, fitted on validation users; 1 and 0 without one.

Training-time evaluation, offline evaluation and the API all come here. The answer's token ids are
found through the model's own chat template, because a word after a space is another token than the
bare word, and training, scoring and evaluation must use the same one.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from services.core.errors import AnswerTokenMissing
from services.core.prompts import Messages, scoring_messages
from services.core.records import Item, ScoredCandidate

YES = "Yes"
NO = "No"


@dataclass(frozen=True, slots=True)
class AnswerTokens:
    """The token ids with which a model starts the answers Yes and No."""

    yes: int
    no: int


@dataclass(frozen=True, slots=True)
class AnswerLogprobs:
    """Natural-log probabilities of the two answer tokens at the first generated position."""

    yes: float
    no: float


ScoreMessages = Callable[[Messages], Awaitable[AnswerLogprobs]]


def answer_margin(*, yes: float, no: float) -> float:
    """Log-odds of Yes over No, from log-probabilities or from logits: they differ by a constant.

    Raises AnswerTokenMissing if either is not a finite number.
    """
    if not (math.isfinite(yes) and math.isfinite(no)):
        raise AnswerTokenMissing(
            f"the model gave logprob {yes} for {YES!r} and {no} for {NO!r}; both must be finite: "
            "check that the engine serves the model the adapter was trained on"
        )
    return yes - no


def yes_probability(margin: float) -> float:
    """P(Yes) among the two answers, in [0, 1]."""
    if margin >= 0:
        return 1.0 / (1.0 + math.exp(-margin))
    odds = math.exp(margin)
    return odds / (1.0 + odds)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt's correction, fitted on validation users: P(Yes) = 0.7 comes true 7 times in 10.

    It keeps every order (the slope is above 0). The default changes nothing. It holds where a share
    `prior` of what is asked are targets; None if that is not known.
    """

    slope: float = 1.0
    intercept: float = 0.0
    prior: float | None = None

    def probability(self, margin: float) -> float:
        """Calibrated P(Yes), in [0, 1]."""
        return yes_probability(self.slope * margin + self.intercept)


NOT_CALIBRATED = Calibration()


def find_answer_tokens(render: Callable[[str | None], Sequence[int]]) -> AnswerTokens:
    """The answer tokens of a model, found through its chat template.

    `render(None)` gives the token ids of a prompt that awaits an answer, `render(word)` those of
    the same prompt answered with the word. Some templates write other white space before an answer
    than at the end of the prompt, so the prompt's last token may differ. Raises AnswerTokenMissing
    if the renderings differ before that, or if Yes and No begin with the same token.
    """
    awaiting, yes, no = list(render(None)), list(render(YES)), list(render(NO))
    start = len(awaiting)
    continues = awaiting[:-1] == yes[: start - 1] and yes[:start] == no[:start]
    if not continues or len(yes) <= start or len(no) <= start:
        raise AnswerTokenMissing(
            f"the chat template renders a prompt answered with {YES!r} or {NO!r} that does not "
            "continue the unanswered one; use a template with a generation prompt"
        )
    tokens = AnswerTokens(yes=yes[start], no=no[start])
    if tokens.yes == tokens.no:
        raise AnswerTokenMissing(
            f"{YES!r} and {NO!r} both begin with token {tokens.yes}; this tokenizer cannot tell "
            "them apart in one generated position"
        )
    return tokens


async def score_candidates(
    score: ScoreMessages, preference: str, candidates: Sequence[Item], calibration: Calibration
) -> list[ScoredCandidate]:
    """Score every candidate for one preference, all at once; the order of `candidates` is kept.

    `calibration` is that of the weights behind `score` (`engine.identity.calibration`). An engine's
    error on any candidate is raised: a missing score is never a default score.
    """
    answers = await asyncio.gather(
        *(score(scoring_messages(preference, item)) for item in candidates)
    )
    margins = [answer_margin(yes=answer.yes, no=answer.no) for answer in answers]
    return [
        ScoredCandidate(item.item_id, margin, calibration.probability(margin))
        for item, margin in zip(candidates, margins, strict=True)
    ]
