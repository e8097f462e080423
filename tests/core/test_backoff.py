"""Pauses grow and stay bounded; Retry-After is read as seconds or as a date."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from services.core.backoff import growing_pause, jittered, retry_after_seconds


@pytest.mark.parametrize(("num_failures", "pause"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0)])
def test_each_pause_is_twice_the_one_before_up_to_the_longest(num_failures, pause):
    assert growing_pause(num_failures, first_seconds=0.5, longest_seconds=3.0) == pause


def test_a_pause_after_a_million_failures_is_the_longest():
    assert growing_pause(1_000_000, first_seconds=0.5, longest_seconds=30.0) == 30.0


def test_jitter_spreads_pauses_around_the_one_asked_for():
    pauses = [jittered(2.0) for _ in range(200)]

    assert all(1.0 <= pause <= 3.0 for pause in pauses)
    assert min(pauses) < 1.5 < 2.5 < max(pauses)


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), (" 0 ", 0.0)])
def test_retry_after_in_seconds(header, seconds):
    assert retry_after_seconds(header) == seconds


def test_retry_after_as_a_date():
    header = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)

    seconds = retry_after_seconds(header)

    assert seconds is not None
    assert 85 < seconds <= 90


def test_retry_after_in_the_past_asks_for_no_pause():
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


@pytest.mark.parametrize("header", [None, "", "soon", "-3", "1.5", "٣"])
def test_a_retry_after_that_is_neither_is_ignored(header):
    assert retry_after_seconds(header) is None
