"""How benchmarks are found and shown."""

from pathlib import Path

import pytest

from benchmarks.support import runner
from benchmarks.support.msr_process import digest_tree
from services.core.errors import InputError


def test_every_benchmark_has_what_running_it_needs():
    assert {"walk", "demo-scores", "microlens", "recurrence"} <= set(runner.names())


def test_an_unknown_benchmark_is_answered_with_those_there_are():
    with pytest.raises(InputError, match="walk"):
        runner.run("no-such-benchmark", [])


def test_a_table_has_aligned_columns():
    assert runner.markdown(("a", "long"), [("wide cell", 1)]) == (
        "| a         | long |\n|-----------|------|\n| wide cell | 1    |"
    )


def test_a_tree_is_known_by_what_its_files_hold(tmp_path: Path):
    for name, text in {"x/one": "1", "y/one": "1", "z/one": "2"}.items():
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(text)

    assert digest_tree(tmp_path / "x") == digest_tree(tmp_path / "y")
    assert digest_tree(tmp_path / "x") != digest_tree(tmp_path / "z")


def test_a_benchmark_that_proves_something_fails_when_it_does_not():
    proved = {"lost": 0, "applied_twice": 0, "preferences_differ": 0}

    assert runner.holds("chaos", proved)
    assert not runner.holds("chaos", proved | {"lost": 1})
    assert runner.holds("ingest", {"interactions_per_second": 1})  # it only measures


def test_a_table_of_a_gpu_leaves_that_of_the_cpu_alone(tmp_path: Path):
    runner.save("scoring", {"seconds": 1}, "of the CPU", tmp_path)
    runner.save("scoring", {"gpu": "a card"}, "of the GPU", tmp_path)

    assert "of the CPU" in (tmp_path / "scoring.md").read_text()
    of_the_gpu = (tmp_path / "scoring-gpu.md").read_text()
    assert of_the_gpu.startswith("# msr bench scoring --gpu\n")
