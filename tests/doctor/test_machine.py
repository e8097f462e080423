"""Versions against requirements, disk, port and GPU, each as it may be found."""

import importlib.metadata
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from services.doctor.findings import Finding
from services.doctor.machine import (
    GIB,
    check_disk,
    check_gpu,
    check_packages,
    check_port,
    check_python,
)
from services.telemetry.build import DISTRIBUTION
from tests.doctor.json_server import json_server

REQUIRES = [
    "base-part<2,>=1.0",
    'serve-part==2.0; extra == "serve"',
    'mllm-msr[serve]; extra == "train"',
    'train-part[fast]==3.0; extra == "train"',
    'other-train-part==5.0; extra == "train"',
    'tool==4.0; extra == "dev"',
]
SERVING = {"base_part": "1.0", "serve_part": "2.0"}


def packages(**installed: str) -> list[Finding]:
    def version_of(name: str) -> str:
        try:
            return installed[name.replace("-", "_")]
        except KeyError:
            raise importlib.metadata.PackageNotFoundError(name) from None

    return list(check_packages(REQUIRES, version_of))


def test_this_python_is_new_enough():
    assert [finding.status for finding in check_python()] == ["ok"]


def test_every_requirement_of_the_distribution_is_read():
    requires = importlib.metadata.requires(DISTRIBUTION) or []

    assert list(check_packages(requires))
    ours = rf"{DISTRIBUTION}\["
    assert not [line for line in requires if not re.match(ours + r"|[\w.-]+[\[=<>]", line)]


def test_a_build_of_a_required_version_is_as_tested_and_absent_extras_are_named():
    (found,) = packages(base_part="1.0", serve_part="2.0+cpu")

    assert found.status == "ok"
    assert found.found.endswith("of base, serve; not installed: train.")


def test_a_missing_package_is_a_problem_and_says_how_to_get_it():
    (found,) = packages(base_part="1.0")

    assert (found.status, found.found) == ("problem", "missing: serve-part==2.0.")
    assert "pip install" in found.remedy


@pytest.mark.parametrize(
    ("installed", "status"),
    [
        ({"base_part": "1.0", "serve_part": "2.1"}, "problem"),
        ({"base_part": "2.0", "serve_part": "2.0"}, "problem"),
        ({"base_part": "1.9.1", "serve_part": "2.0"}, "ok"),
        ({**SERVING, "train_part": "3.1", "other_train_part": "5.0"}, "note"),
        ({**SERVING, "train_part": "3.1"}, "ok"),  # of an extra that is not there
        ({**SERVING, "tool": "9"}, "ok"),
    ],
)
def test_another_version_weighs_as_much_as_what_it_is_for(installed: dict[str, str], status: str):
    assert [finding.status for finding in packages(**installed)] == [status]


@pytest.mark.parametrize(
    ("free_bytes", "status"), [(GIB // 2, "problem"), (5 * GIB, "note"), (50 * GIB, "ok")]
)
def test_a_disk_is_judged_by_its_free_space(free_bytes: int, status: str, tmp_path: Path):
    folders = {"data": str(tmp_path / "not" / "there")}

    (found,) = check_disk(folders, free_bytes_of=lambda folder: free_bytes)

    assert found.status == status


@pytest.fixture
def closed_folder(tmp_path: Path) -> Iterator[Path]:
    """One that may not be written. Root may write everywhere, and is somebody else for a moment."""
    tmp_path.chmod(0o500)
    if os.geteuid() != 0:
        yield tmp_path
        return
    nobody = 65_534
    os.setresuid(nobody, nobody, 0)
    yield tmp_path
    os.setresuid(0, 0, 0)


def test_a_folder_that_cannot_be_written_is_a_problem(closed_folder: Path):
    (found,) = check_disk({"state": str(closed_folder)})

    assert (found.status, "cannot be written" in found.found) == ("problem", True)


def test_an_object_store_has_no_disk_to_measure():
    (found,) = check_disk({"data": "memory://data"})

    assert found.status == "ok"


def test_a_port_of_another_program_is_a_problem_and_says_which_option_to_change():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        other.close()
        assert [finding.status for finding in check_port("127.0.0.1", port)] == ["ok"]
    with json_server({"/": {}}) as url:
        (found,) = check_port("127.0.0.1", int(url.rpartition(":")[2]))

    assert (found.status, "--port" in found.remedy) == ("problem", True)


def test_a_port_on_which_our_own_api_answers_is_a_note():
    with json_server({"/version": {"version": "0.1.0", "prompts": {}}}) as url:
        (found,) = check_port("127.0.0.1", int(url.rpartition(":")[2]))

    assert found.status == "note"


def test_an_address_of_another_machine_is_a_problem():
    (found,) = check_port("192.0.2.1", 0)

    assert found.status == "problem"


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this machine has a GPU")
@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5", "550.54.15"),
        ("NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build", "580.159.04"),
    ],
)
def test_a_driver_whose_card_torch_cannot_use_is_a_problem(line: str, version: str, tmp_path: Path):
    driver = tmp_path / "version"
    driver.write_text(f"NVRM version: {line}\n")

    (found,) = check_gpu(driver)

    assert (found.status, f"driver {version} " in found.found) == ("problem", True)


@pytest.mark.parametrize(
    ("visible", "cuda", "text"),
    [
        ("", "13.0", "CUDA_VISIBLE_DEVICES='' may hide it"),
        (None, None, "install the CUDA build"),
        (None, "13.0", "--gpus all"),
    ],
)
def test_what_hides_a_card_decides_the_remedy(
    visible: str | None,
    cuda: str | None,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    driver = tmp_path / "version"
    driver.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5\n")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    (found,) = check_gpu(driver)

    assert text in found.remedy


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this machine has a GPU")
def test_no_gpu_is_a_note():
    assert [finding.status for finding in check_gpu()] == ["note"]
