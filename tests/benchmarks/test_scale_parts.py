"""What the retrieval stage and the store are measured on is what they really read."""

from pathlib import Path

import pytest

from benchmarks.support.retrieval_scale import measure_retrieval, write_synthetic
from benchmarks.support.users_scale import measure_users
from services.retrieval.cheap_rankers import CheapRankers


def test_a_synthetic_artifact_is_one_that_the_rankers_load(tmp_path: Path):
    write_synthetic(str(tmp_path), 300)
    rankers = CheapRankers.load(str(tmp_path))
    found = rankers.retrieve(["item-0000007"], limit=200, exclude=["item-0000007"])
    assert rankers.num_items == 300
    assert {"neighbors", "sequential"} <= {each.source for each in found}


def test_retrieval_is_timed_over_a_catalogue_of_the_size_asked_for():
    row = measure_retrieval(500)
    assert row["size"] == 500
    assert 0 < row["median_ms"] <= row["p95_ms"]
    assert (row["recall"], row["normalizer_error"]) == (1.0, pytest.approx(0, abs=1e-3))


async def test_a_stored_user_takes_kilobytes_whatever_the_number():
    rows = await measure_users([100, 600], 16)
    assert [row["size"] for row in rows] == [100, 600]
    assert rows[1]["bytes_each"] == pytest.approx(rows[0]["bytes_each"], rel=0.5)
    assert 600 < rows[1]["bytes_each"] < 10_000
