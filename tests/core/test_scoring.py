"""Scores: one margin from logits or log-probabilities, and never a default for a missing answer."""

import math

import pytest

from services.core.errors import AnswerTokenMissing
from services.core.prompts import Messages
from services.core.records import Item, ItemId
from services.core.scoring import (
    NOT_CALIBRATED,
    AnswerLogprobs,
    Calibration,
    answer_margin,
    find_answer_tokens,
    score_candidates,
    yes_probability,
)


def test_logits_and_log_probabilities_give_one_margin():
    logits = [2.0, -1.0, 0.5]
    total = math.log(sum(math.exp(value) for value in logits))

    from_logits = answer_margin(yes=logits[0], no=logits[1])
    from_logprobs = answer_margin(yes=logits[0] - total, no=logits[1] - total)

    assert from_logits == pytest.approx(from_logprobs)


@pytest.mark.parametrize("missing", [math.nan, -math.inf, math.inf])
def test_an_answer_without_a_log_probability_is_an_error(missing: float):
    with pytest.raises(AnswerTokenMissing):
        answer_margin(yes=missing, no=-1.0)


@pytest.mark.parametrize(
    ("margin", "probability"), [(0.0, 0.5), (math.log(3), 0.75), (800.0, 1.0), (-800.0, 0.0)]
)
def test_the_probability_is_the_sigmoid_of_the_margin(margin: float, probability: float):
    assert yes_probability(margin) == pytest.approx(probability)


def test_answer_tokens_are_those_the_template_writes_after_the_prompt():
    rendered = {None: [1, 5, 6], "Yes": [1, 5, 6, 70, 2], "No": [1, 5, 6, 71, 2]}

    tokens = find_answer_tokens(lambda word: rendered[word])

    assert (tokens.yes, tokens.no) == (70, 71)


def test_white_space_before_an_answer_may_merge_with_the_end_of_the_prompt():
    # As Llama 3 writes it: two newlines before the model's turn, three before an answer.
    rendered = {None: [1, 5, 22], "Yes": [1, 5, 222, 70, 2], "No": [1, 5, 222, 71, 2]}

    tokens = find_answer_tokens(lambda word: rendered[word])

    assert (tokens.yes, tokens.no) == (70, 71)


@pytest.mark.parametrize(
    "rendered",
    [
        {None: [1, 5, 6], "Yes": [1, 9, 6, 70], "No": [1, 9, 6, 71]},
        {None: [1, 5], "Yes": [1, 5, 70], "No": [1, 5, 70]},
        {None: [1, 5], "Yes": [1, 5, 70, 8], "No": [1, 5, 70, 9]},
        {None: [1, 5], "Yes": [1, 5], "No": [1, 5]},
    ],
    ids=["prompt differs", "same token", "same beginning", "nothing added"],
)
def test_a_template_that_cannot_tell_the_answers_apart_is_refused(rendered):
    with pytest.raises(AnswerTokenMissing):
        find_answer_tokens(lambda word: rendered[word])


async def test_candidates_are_scored_in_their_own_order():
    async def score(messages: Messages) -> AnswerLogprobs:
        return AnswerLogprobs(yes=-float(len(messages[0].text)), no=0.0)

    candidates = [Item(ItemId(str(n)), "x" * n) for n in (30, 1, 20)]
    scored = await score_candidates(score, "likes red", candidates, NOT_CALIBRATED)

    assert [candidate.item_id for candidate in scored] == ["30", "1", "20"]
    assert scored[1].margin > scored[2].margin > scored[0].margin


async def test_a_calibration_moves_probabilities_and_leaves_margins_and_order():
    async def score(messages: Messages) -> AnswerLogprobs:
        return AnswerLogprobs(yes=-0.01 * len(messages[0].text), no=0.0)

    candidates = [Item(ItemId(str(n)), "x" * n) for n in (30, 1)]
    plain = await score_candidates(score, "", candidates, NOT_CALIBRATED)
    moved = await score_candidates(score, "", candidates, Calibration(2.0, math.log(3)))

    assert [each.margin for each in moved] == [each.margin for each in plain]
    assert moved[1].probability > moved[0].probability
    assert moved[0].probability == yes_probability(2 * plain[0].margin + math.log(3))


async def test_one_candidate_without_an_answer_fails_the_whole_scoring():
    async def score(messages: Messages) -> AnswerLogprobs:
        raise AnswerTokenMissing("no Yes")

    with pytest.raises(AnswerTokenMissing):
        await score_candidates(score, "", [Item(ItemId("i"), "a")], NOT_CALIBRATED)
