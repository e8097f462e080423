"""Which prompts are asked, on a clock that the tests move."""

from contextlib import ExitStack

import pytest

from services.api.recommend.admission import Admission


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(clock: Clock) -> Admission:
    return Admission(clock)


def answer(admission: Admission, clock: Clock, number: int, *, pace: float) -> None:
    """Ask so many prompts at once, and let one be answered every `pace` seconds."""
    with admission.asking(number) as asked:
        for _ in range(number):
            clock.now += pace
            asked.note_answer()


def answer_nothing(admission: Admission, clock: Clock, *, seconds: float) -> None:
    with admission.asking(1):
        clock.now += seconds


def test_before_anything_was_answered_all_is_asked(admission: Admission):
    assert admission.num_admitted(1000, 0.05, "background") == 1000


def test_a_request_that_cannot_be_answered_in_time_is_shed_whole(
    admission: Admission, clock: Clock
):
    answer(admission, clock, 20, pace=0.02)

    with admission.asking(30):
        assert admission.num_admitted(11, 1.0, "interactive") == 0
        assert admission.num_admitted(10, 1.0, "interactive") == 10


def test_background_requests_are_shed_while_interactive_ones_still_fit(
    admission: Admission, clock: Clock
):
    answer(admission, clock, 20, pace=0.02)

    with admission.asking(15):
        assert admission.num_admitted(10, 1.0, "background") == 0
        assert admission.num_admitted(10, 1.0, "interactive") == 10


def test_an_idle_engine_takes_the_best_of_a_request_that_is_too_large(
    admission: Admission, clock: Clock
):
    answer(admission, clock, 20, pace=0.125)

    assert admission.num_admitted(20, 1.0, "interactive") == 6
    assert admission.num_admitted(20, 0.05, "interactive") == 1


def test_an_engine_that_became_slower_is_asked_less(admission: Admission, clock: Clock):
    answer(admission, clock, 40, pace=0.01)
    answer(admission, clock, 40, pace=0.1)

    assert 8 <= admission.num_admitted(100, 1.0, "interactive") < 20


def test_while_nothing_is_answered_no_more_is_asked(admission: Admission, clock: Clock):
    answer(admission, clock, 20, pace=0.001)

    with ExitStack() as asking:
        asking.enter_context(admission.asking(20))
        clock.now += 0.2
        assert admission.num_admitted(5, 0.5, "interactive") == 0


def test_an_engine_that_answers_again_is_measured_anew(admission: Admission, clock: Clock):
    for _ in range(20):
        answer_nothing(admission, clock, seconds=0.5)
    assert admission.num_admitted(20, 0.5, "interactive") == 1
    answer(admission, clock, 1, pace=0.01)

    assert admission.num_admitted(20, 0.5, "interactive") == 20


def test_a_failure_says_nothing_about_the_pace(admission: Admission, clock: Clock):
    answer(admission, clock, 20, pace=0.02)
    pace = admission.pace_seconds
    with admission.asking(20) as asked:
        for _ in range(20):
            asked.note_failure()

    assert admission.pace_seconds == pytest.approx(pace)
    assert admission.num_under_way == 0


def test_what_was_seen_long_ago_counts_little(admission: Admission, clock: Clock):
    answer(admission, clock, 40, pace=1.0)
    clock.now += 20
    answer(admission, clock, 1, pace=0.01)

    assert admission.pace_seconds == pytest.approx(0.01, rel=0.1)
