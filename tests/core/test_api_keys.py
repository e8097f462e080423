"""What an API key is, and which are never made."""

from typing import Any

import pytest

from services.core.api_keys import ApiKey, Scope, issue, parse
from services.core.errors import InputError


def a_key(**fields: Any) -> tuple[ApiKey, str]:
    given = {"name": "shop", "scopes": [Scope.READ], "now_ms": 1000} | fields
    return issue(given.pop("name"), given.pop("scopes"), **given)


def test_a_key_is_opened_by_its_own_secret_and_no_other():
    key, token = a_key()
    _, other = a_key()

    secret, foreign = (each.split("_", 2)[2] for each in (token, other))
    assert parse(token) == (key.key_id, secret)
    assert key.is_opened_by(secret)
    assert not key.is_opened_by(foreign)
    assert not key.is_opened_by("")


def test_what_is_kept_of_a_key_does_not_hold_its_secret():
    key, token = a_key()

    _, _, secret = token.split("_", 2)
    assert len(secret) == 43  # 256 bits
    assert secret not in repr(key) + key.digest
    assert key.digest not in repr(key)


def test_no_two_keys_are_alike():
    tokens = {a_key()[1] for _ in range(100)}

    assert len(tokens) == len({parse(token) for token in tokens}) == 100


@pytest.mark.parametrize(
    "text", ["", "msr_", "msr_0123456789ab_short", "MSR_0123456789ab_" + "x" * 43, "a.b.c",
             "msr_0123456789ab_" + "x" * 44, "msr_0123456789ab_" + "x" * 42 + "é"],
)  # fmt: skip
def test_what_has_not_the_form_of_a_key_is_none(text: str):
    assert parse(text) is None


def test_a_key_expires_at_its_time_and_not_before():
    key, _ = a_key(expires_ms=2000)

    assert [key.has_expired(now) for now in (1999, 2000, 2001)] == [False, True, True]
    assert not a_key()[0].has_expired(2**53)


@pytest.mark.parametrize(
    ("rate", "burst", "held"), [(50.0, 100, 100), (2.5, None, 3), (0.01, None, 1), (0.0, None, 0)]
)
def test_a_burst_is_given_or_what_a_second_brings(rate: float, burst: int | None, held: int):
    assert a_key(rate_per_second=rate, burst=burst)[0].burst == held


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "printable"),
        ({"name": "x" * 101}, "not 101"),
        ({"name": "two\nlines"}, "printable"),
        ({"scopes": []}, "read, write, admin"),
        ({"expires_ms": 1000}, "expired already"),
        ({"burst": 5}, "needs a rate"),
        ({"rate_per_second": float("nan")}, "at least 0.001"),
        ({"rate_per_second": float("inf")}, "at least 0.001"),
        ({"rate_per_second": -1.0}, "at least 0.001"),
        ({"rate_per_second": 1.0, "burst": 0}, "a burst of 0"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(fields: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        a_key(**fields)
