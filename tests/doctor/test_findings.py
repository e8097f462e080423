"""One check neither stops nor hangs the others, and no credential gets out."""

import threading
from collections.abc import Iterable, Iterator

import pytest

from services.core.errors import StateUnavailable
from services.doctor.findings import Check, Finding, ok, run_checks, without_credentials


def look_well() -> Iterable[Finding]:
    return [ok("all is well.")]


def outcomes(checks: dict[str, Check], timeout_seconds: float = 30.0) -> list[tuple[str, str]]:
    found = run_checks(checks, timeout_seconds=timeout_seconds)
    return [(finding.check, finding.status) for finding in found]


def test_a_check_that_fails_is_a_problem_of_its_name_after_what_it_had_found():
    def look() -> Iterator[Finding]:
        yield ok("half of it works.")
        raise ZeroDivisionError("nobody thought of this")

    assert outcomes({"odd": look, "well": look_well}) == [
        ("odd", "ok"),
        ("odd", "problem"),
        ("well", "ok"),
    ]


def test_a_check_that_hangs_is_a_problem_and_the_next_one_runs():
    released = threading.Event()

    def look() -> Iterable[Finding]:
        released.wait()
        return []

    found = outcomes({"slow": look, "well": look_well}, timeout_seconds=0.2)
    released.set()

    assert found == [("slow", "problem"), ("well", "ok")]


def test_an_error_of_ours_is_split_into_what_failed_and_what_to_do():
    def look() -> Iterable[Finding]:
        raise StateUnavailable("Redis at x does not serve (down; no route); start it")

    (finding,) = run_checks({"redis": look}, timeout_seconds=30)

    assert finding.found == "Redis at x does not serve (down; no route)."
    assert finding.remedy == "Start it."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at redis://:pw@host:1/0 or so", "at redis://***@host:1/0 or so"),
        ("'rediss://me:p@ss@host'", "'rediss://***@host'"),
        ("unix:///tmp/s?password=pw&db=0", "unix:///tmp/s?password=***&db=0"),
        ("http://host:8001 and me@example.org", "http://host:8001 and me@example.org"),
    ],
)
def test_addresses_are_shown_without_credentials(text: str, shown: str):
    assert without_credentials(text) == shown
