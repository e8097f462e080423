"""A part of the corpus through the programs; `msr bench hostile` sends all of it."""

from pathlib import Path

import pytest

from benchmarks.attacks.image_attack_run import disagreements, prepare_all, put_all
from benchmarks.attacks.images import corpus
from benchmarks.resilience import hostile

IMAGES = [image for image in corpus() if not image.heavy][::12]


@pytest.mark.slow
async def test_api_and_batch_step_survive_hostile_images_and_decide_alike(tmp_path: Path):
    online = await put_all(IMAGES, tmp_path)
    offline = prepare_all(IMAGES, tmp_path)

    assert (online.faults, offline.faults) == ({}, {})
    assert not disagreements(online, offline)
    assert len(online.accepted) + len(online.refused) == len(IMAGES)


def test_the_bench_fails_on_a_fault_on_growth_and_on_images_that_are_unaccounted_for():
    way = {"accepted": 1, "refused": 1, "faults": {}, "grown_bytes": 0}
    good = {
        "images": 2,
        "api": way,
        "batch": way,
        "disagreements": [],
        "urls": 1,
        "urls_fetched": [],
    }

    assert hostile.holds(good)
    assert "| addresses" in hostile.table(good)
    assert not hostile.holds(good | {"api": way | {"faults": {"a png": "HTTP 500"}}})
    assert not hostile.holds(good | {"api": way | {"grown_bytes": 2**40}})
    assert not hostile.holds(good | {"batch": way | {"refused": 0}})
    assert not hostile.holds(good | {"disagreements": ["a png"]})
    assert not hostile.holds(good | {"urls_fetched": ["loopback"]})
