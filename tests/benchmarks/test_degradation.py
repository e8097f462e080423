"""The figures of a fault: what counts as in time, as full, and as recovered."""

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.faults.degradation import Moments, judge
from benchmarks.faults.load import Answer
from benchmarks.resilience.degrade import holds

STRUCK = Moments(struck_at=10.0, mended_at=20.0)
FULL = Answer(0.0, 0.0, 0.1, 200, num_scored_now=2)
SHED = replace(FULL, reason="shed", num_scored_now=0)


def at(sent_at: float, answer: Answer, *, seconds: float = 0.1) -> Answer:
    return replace(answer, due_at=sent_at, sent_at=sent_at, ended_at=sent_at + seconds)


def figures(*answers: Answer) -> dict[str, Any]:
    return judge(answers, STRUCK, deadline=1.0)


def test_an_answer_may_be_50_ms_late_and_no_more():
    found = figures(at(11, SHED, seconds=1.04), at(12, SHED, seconds=1.06))

    assert (found["requests"], found["in_time_share"]) == (2, 0.5)
    assert found["worst_ms"] == pytest.approx(1060)


def test_what_never_came_is_not_in_time():
    found = figures(at(11, replace(SHED, status=0)), at(12, SHED))

    assert (found["in_time_share"], found["unanswered"]) == (0.5, 1)


def test_errors_of_the_server_are_counted_since_the_fault():
    failed = replace(SHED, status=503)

    assert figures(at(1, failed), at(11, failed), at(21, failed))["answered_5xx"] == 2


def test_recovered_is_when_full_scores_come_again():
    found = figures(at(1, FULL), at(15, SHED), at(20.5, SHED), at(21, FULL), at(22, FULL))

    assert found["recovery_seconds"] == pytest.approx(1.1)
    assert (found["full_share_before"], found["full_share_during"]) == (1.0, 0.0)
    assert found["full_share_after"] == pytest.approx(0.6667)


def test_scores_out_of_the_cache_are_no_recovery():
    assert figures(at(21, replace(FULL, num_scored_now=0)))["recovery_seconds"] is None


def test_a_generator_that_did_not_keep_up_shows():
    late = replace(at(11, SHED), due_at=10.5)

    assert figures(late)["sent_late_p99_ms"] == pytest.approx(500)


def test_one_fault_that_was_not_borne_fails_the_whole():
    borne, not_borne = {"holds": True}, {"holds": False}

    assert holds({"faults": {"killed": borne}})
    assert not holds({"faults": {"killed": borne, "slow": not_borne}})
