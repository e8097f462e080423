"""When a server is no longer waited for, and when it is again."""

import pytest

from services.engines.vllm_client.circuit_breaker import LEAST_SECONDS, MAX_GIVEN_UP, Breaker


@pytest.fixture
def breaker() -> Breaker:
    breaker = Breaker()
    breaker.admit()
    return breaker


def give_up(breaker: Breaker, *times: tuple[float, float]) -> list[bool]:
    return [breaker.note_given_up(asked_at, now) for asked_at, now in times]


def test_it_opens_when_prompts_in_a_row_were_given_up(breaker: Breaker):
    assert give_up(breaker, (0, 1), (1.5, 2), (2.5, 3)) == [False, False, True]
    assert MAX_GIVEN_UP == 3


def test_prompts_that_waited_at_the_same_time_count_as_one(breaker: Breaker):
    assert give_up(breaker, *[(0, 1)] * 20, (0.9, 1.9), (1.9, 2.9)) == [False] * 22


def test_a_slow_server_that_answers_others_meanwhile_stays_in_use(breaker: Breaker):
    for second in range(10):
        breaker.note_answer(second + 0.5)
        assert not breaker.note_given_up(second, second + 1)


def test_an_answer_begins_the_count_anew(breaker: Breaker):
    give_up(breaker, (0, 1), (1.5, 2))
    breaker.note_answer(2.1)

    assert give_up(breaker, (2.5, 3), (3.5, 4)) == [False, False]


def test_who_waits_too_shortly_says_nothing(breaker: Breaker):
    times = [(k, k + LEAST_SECONDS / 2) for k in range(10)]

    assert give_up(breaker, *times) == [False] * 10


def test_half_open_it_opens_at_the_first_and_closes_at_an_answer(breaker: Breaker):
    breaker.open()
    breaker.admit()
    assert breaker.state == "half-open"
    assert breaker.note_given_up(0, 1)
    breaker.note_answer(2)

    assert breaker.state == "closed"
    assert not breaker.note_given_up(3, 4)


def test_returns_in_vain_are_counted_until_something_is_answered(breaker: Breaker):
    for _ in range(3):
        breaker.open()
        breaker.admit()
    assert breaker.num_in_vain == 2
    breaker.note_answer(1)

    assert breaker.num_in_vain == 0
