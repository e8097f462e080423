"""When a server is no longer waited for, and when it is again."""

import pytest

from services.engines.vllm_client.circuit_breaker import (
    MAX_ABANDONED,
    MIN_WAIT_SECONDS,
    CircuitBreaker,
)


@pytest.fixture
def breaker() -> CircuitBreaker:
    breaker = CircuitBreaker()
    breaker.admit()
    return breaker


def give_up(breaker: CircuitBreaker, *times: tuple[float, float]) -> list[bool]:
    return [breaker.record_abandoned(sent_at, now) for sent_at, now in times]


def test_it_opens_when_prompts_in_a_row_were_given_up(breaker: CircuitBreaker):
    assert give_up(breaker, (0, 1), (1.5, 2), (2.5, 3)) == [False, False, True]
    assert MAX_ABANDONED == 3


def test_prompts_that_waited_at_the_same_time_count_as_one(breaker: CircuitBreaker):
    assert give_up(breaker, *[(0, 1)] * 20, (0.9, 1.9), (1.9, 2.9)) == [False] * 22


def test_a_slow_server_that_answers_others_meanwhile_stays_in_use(breaker: CircuitBreaker):
    for second in range(10):
        breaker.record_answer(second + 0.5)
        assert not breaker.record_abandoned(second, second + 1)


def test_an_answer_begins_the_count_anew(breaker: CircuitBreaker):
    give_up(breaker, (0, 1), (1.5, 2))
    breaker.record_answer(2.1)

    assert give_up(breaker, (2.5, 3), (3.5, 4)) == [False, False]


def test_who_waits_too_shortly_says_nothing(breaker: CircuitBreaker):
    times = [(k, k + MIN_WAIT_SECONDS / 2) for k in range(10)]

    assert give_up(breaker, *times) == [False] * 10


def test_half_open_it_opens_at_the_first_and_closes_at_an_answer(breaker: CircuitBreaker):
    breaker.open()
    breaker.admit()
    assert breaker.state == "half-open"
    assert breaker.record_abandoned(0, 1)
    breaker.record_answer(2)

    assert breaker.state == "closed"
    assert not breaker.record_abandoned(3, 4)


def test_failed_returns_are_counted_until_something_is_answered(breaker: CircuitBreaker):
    for _ in range(3):
        breaker.open()
        breaker.admit()
    assert breaker.num_failed_returns == 2
    breaker.record_answer(1)

    assert breaker.num_failed_returns == 0
