"""What a step lacks is found before it runs: by the doctor, and by the step itself at once.

Packages are taken away from a real `msr` by a `sitecustomize` that blocks their import.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from services.doctor.steps import check_steps
from services.process.step_packages import NEEDED, TENSORBOARD, Package
from services.telemetry.build import DISTRIBUTION, ROOT

CONFIG = ROOT / "model_training" / "configs" / "demo.yaml"
INSTALL = 'pip install "mllm-msr[train]"'


def msr_without(
    modules: list[str], folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    blocked = f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"
    (folder / "sitecustomize.py").write_text(blocked)
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )


def doctor_without(modules: list[str], folder: Path, *arguments: str):
    data = ("--data", str(folder / "data"), "--port", "0", "--timeout", "120", "--json")
    finished = msr_without(modules, folder, "doctor", *data, *arguments)
    told = json.loads(finished.stdout)
    found = [check for check in told["checks"] if check["check"] == "steps"]
    return finished.returncode, found


def test_a_machine_that_only_serves_gets_one_note(tmp_path: Path):
    status, [found] = doctor_without(["trl", "matplotlib"], tmp_path)

    assert (status, found["status"]) == (0, "note")
    assert "`msr train` (trl), `msr evaluate` (matplotlib)" in found["found"]


@pytest.mark.parametrize(
    "modules", [["trl", "matplotlib"], ["tensorboard"]], ids=["trl-matplotlib", "tensorboard"]
)
def test_what_a_named_step_lacks_is_a_problem_with_the_command(modules: list[str], tmp_path: Path):
    steps = ("--for", "train", "--for", "evaluate", "--config", str(CONFIG))

    status, found = doctor_without(modules, tmp_path, *steps)

    problems = [each for each in found if each["status"] == "problem"]
    assert status == 1
    assert all(module in each["found"] for module, each in zip(modules, problems, strict=True))
    assert all(INSTALL in each["remedy"] for each in problems)


def test_a_complete_environment_may_take_every_step(tmp_path: Path):
    status, found = doctor_without(
        [], tmp_path, "--for", "train", "--for", "evaluate", "--config", str(CONFIG)
    )

    assert (status, [each["status"] for each in found]) == (0, ["ok", "ok"])


def test_a_configuration_that_this_machine_cannot_train_is_a_problem(tmp_path: Path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("base_model: base\ntrackers: [no-such-tracker]\n")

    status, [found] = doctor_without([], tmp_path, "--for", "train", "--config", str(wrong))

    assert (status, found["status"]) == (1, "problem")
    assert "trackers" in found["found"]


@pytest.mark.parametrize("module", ["trl", "datasets", "tensorboard"])
def test_training_fails_at_once_where_a_package_is_missing(module: str, tmp_path: Path):
    finished = msr_without(
        [module], tmp_path, "train", "--data", str(tmp_path / "data"), "--config", str(CONFIG)
    )

    assert finished.returncode == 1
    [said] = finished.stderr.splitlines()
    assert said.endswith(f"run `{INSTALL}`")


def test_evaluation_fails_at_once_where_a_package_is_missing(tmp_path: Path):
    finished = msr_without(["matplotlib"], tmp_path, "evaluate", "--data", str(tmp_path / "data"))

    assert finished.returncode == 1
    [said] = finished.stderr.splitlines()
    assert said.endswith(f"run `{INSTALL}`")


def test_a_version_out_of_the_tested_range_is_a_problem_of_the_step():
    found = list(check_steps(["evaluate"], CONFIG, ['matplotlib<2; extra == "train"']))

    assert [each.status for each in found] == ["problem", "ok"]
    assert "tested: <2" in found[0].found


def brought_by(extras: list[str]) -> set[str]:
    """The distributions that these extras of pyproject.toml bring, with the extras they name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: set[str] = set()
    for extra in extras:
        for need in map(Requirement, project["optional-dependencies"][extra]):
            found |= brought_by(list(need.extras)) if need.name == DISTRIBUTION else {need.name}
    return found


@pytest.mark.parametrize("package", [TENSORBOARD, *chain(*NEEDED.values())])
def test_the_extra_that_is_named_brings_the_package(package: Package):
    assert package.distribution in brought_by([package.extra])


def test_the_guide_installs_what_its_steps_need():
    guide = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8")

    [extras] = re.findall(r'^pip install "\.\[([\w,]+)\]"$', guide, re.MULTILINE)

    needed = {package.distribution for package in (TENSORBOARD, *chain(*NEEDED.values()))}
    assert needed <= brought_by(extras.split(","))
