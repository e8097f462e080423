"""How benchmarks are found and shown."""

import re
from pathlib import Path

import pytest

from benchmarks.support import runner
from benchmarks.support.msr_process import digest_tree
from services.core.errors import InputError
from services.telemetry.build import code_commit


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


def test_a_quick_form_is_run_with_its_own_arguments_and_is_not_kept(tmp_path: Path):
    assert runner.is_quick(["--quick", "--seed", "1"])
    with pytest.raises(InputError, match="leave out --quick or --save"):
        runner.run("walk", ["--quick", "--save"])


@pytest.mark.parametrize("name", runner.names())
def test_every_benchmark_has_a_quick_form_and_a_table(name: str):
    module = runner.load(name)
    assert all(isinstance(argument, str) for argument in module.QUICK)
    assert callable(module.run)
    assert callable(module.table)


@pytest.mark.parametrize("path", sorted((runner.FOLDER / "results").glob("*.md")), ids=str)
def test_a_kept_table_names_its_benchmark_and_its_commit(path: Path):
    lines = path.read_text().splitlines()
    assert lines[0].removeprefix("# msr bench ").removesuffix(" --gpu") in runner.names()
    assert any(re.fullmatch(r"commit [0-9a-f]{7,}(\+changes)?", line) for line in lines)


def test_a_saved_table_names_the_commit_of_the_code(tmp_path: Path):
    runner.save("walk", {}, "any table", tmp_path)
    assert f"\ncommit {code_commit() or 'unknown'}\n" in (tmp_path / "walk.md").read_text()


def test_a_table_of_a_gpu_leaves_that_of_the_cpu_alone(tmp_path: Path):
    runner.save("scoring", {"seconds": 1}, "of the CPU", tmp_path)
    runner.save("scoring", {"gpu": "a card"}, "of the GPU", tmp_path)

    assert "of the CPU" in (tmp_path / "scoring.md").read_text()
    of_the_gpu = (tmp_path / "scoring-gpu.md").read_text()
    assert of_the_gpu.startswith("# msr bench scoring --gpu\n")
