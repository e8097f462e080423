"""How volumes are filled: by the script of the image, with its three folders moved elsewhere."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.compose.composed import ROOT

SCRIPT = (ROOT / "docker" / "seed-volumes").read_text()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image with a demo, and two empty volumes."""
    for file in ("models/base/weights", "data/items/part", "data/adapter/weights"):
        path = tmp_path / "opt" / "demo" / file
        path.parent.mkdir(parents=True)
        path.write_text("of the demo")
    (tmp_path / "opt/demo/data/personas.json").write_text("of the demo")
    for volume in ("models", "data"):
        (tmp_path / volume).mkdir()
    return tmp_path


DEMO = {
    "models/base/weights",
    "data/items/part",
    "data/adapter/weights",
    "data/personas.json",
}


def seeding(root: Path, **environment: str) -> subprocess.Popen[str]:
    script = re.sub(r"(?<!\w)/(opt/demo|models|data)\b", rf"{root}/\1", SCRIPT)
    path = f"{root}/bin:{os.environ['PATH']}"
    return subprocess.Popen(
        ["sh", "-c", script], env={"PATH": path} | environment, stdout=subprocess.PIPE, text=True
    )


def seed(root: Path, **environment: str) -> None:
    assert seeding(root, **environment).wait() == 0


def filled(root: Path) -> set[str]:
    """Every file of the volumes."""
    return {
        str(file.relative_to(root))
        for volume in ("models", "data")
        for file in (root / volume).rglob("*")
        if file.is_file()
    }


def a_hub(root: Path) -> None:
    """A `hf` that downloads one file."""
    program = root / "bin" / "hf"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nmkdir -p "$6" && echo "$2 $4" > "$6/weights"\n')
    program.chmod(0o755)


def test_empty_volumes_get_the_demo(root: Path):
    seed(root)

    assert filled(root) == DEMO


def test_what_is_there_is_never_touched(root: Path):
    for mine in ("models/base/weights", "data/items/part"):
        (root / mine).parent.mkdir()
        (root / mine).write_text("mine")

    seed(root)

    assert filled(root) == {"models/base/weights", "data/items/part"}
    assert {(root / file).read_text() for file in filled(root)} == {"mine"}


def test_two_that_start_at_once_leave_one_whole_copy(root: Path):
    both = [seeding(root) for _ in range(2)]

    assert [each.wait() for each in both] == [0, 0]
    assert filled(root) == DEMO


def test_a_copy_that_was_cut_off_is_gone_on_with(root: Path):
    (root / "data" / "adapter").mkdir()
    (root / "data" / "adapter" / "weights").write_text("of the demo")

    seed(root)

    assert "data/items/part" in filled(root)


def test_a_model_of_the_hub_comes_without_the_demo(root: Path):
    a_hub(root)

    seed(root, HUB_MODEL="someone/model", HUB_REVISION="abc")

    assert filled(root) == {"models/base/weights"}
    assert (root / "models/base/weights").read_text() == "someone/model abc\n"


def test_who_waits_for_the_model_ends_once_another_has_downloaded_it(root: Path):
    a_hub(root)
    waiting = seeding(root, HUB_MODEL="someone/model", WAIT_FOR_MODEL="1")

    seed(root, HUB_MODEL="someone/model")

    assert waiting.wait() == 0
