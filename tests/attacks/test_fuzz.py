"""`msr bench fuzz` in its short form: drawn requests, a fixed seed, a key for everything."""

from pathlib import Path

import pytest

from benchmarks.resilience import fuzz


@pytest.mark.slow
async def test_every_answer_is_one_that_the_document_lists(tmp_path: Path):
    fuzzed = await fuzz.fuzz(
        tmp_path, with_keys=True, num_examples=15, seed=0, phases=("examples", "fuzzing")
    )

    assert fuzzed.has_passed, fuzzed.said
    assert fuzzed.num_cases >= 100


def test_the_bench_fails_on_a_failed_check_and_on_too_few_cases():
    passed = {"cases": 1_000, "passed": True}
    figures = {"cases": 2_000, "keyless": passed, "keys required": passed}

    assert fuzz.holds(figures)
    assert "| keys required | 1,000" in fuzz.table(figures)
    assert not fuzz.holds(figures | {"cases": 1_999})
    assert not fuzz.holds(figures | {"keyless": passed | {"passed": False}})
