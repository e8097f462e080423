"""requirements.lock holds what pyproject.toml asks for, each package with hashes."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docs.documents import ROOT

DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = DECLARED["project"]
ASKED: dict[str, list[str]] = {
    "base": PROJECT["dependencies"],
    **PROJECT["optional-dependencies"],
    **DECLARED["dependency-groups"],
}
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"# (?P<needed_by>[\w -]+)\n"
    r"(?P<name>[\w.-]+)==(?P<version>[^\s;]+)( ; [^\n\\]+)? \\\n"
    r"(?P<hashes>(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+)"
)
LOCKED = {block["name"]: block for block in BLOCK.finditer(LOCK)}


def test_every_line_belongs_to_a_pinned_package_with_hashes():
    header, _, _ = LOCK.partition("\n# base")

    assert LOCKED
    assert BLOCK.sub("", LOCK).splitlines() == header.splitlines()[:2]
    assert "://" not in LOCK


@pytest.mark.parametrize("extra", sorted(set(ASKED) - {"vllm"}))
def test_the_lock_has_each_requirement_in_its_range_and_for_its_extra(extra: str):
    required = [Requirement(line) for line in ASKED[extra]]
    # These two are installed by their versions alone; an extra may name others.
    for each in required:
        if each.name in ("torch", "torchvision", PROJECT["name"]):
            continue
        locked = LOCKED[canonicalize_name(each.name)]
        assert each.specifier.contains(locked["version"]), locked[0].partition(" \\")[0]
        assert {extra, "base"} & set(locked["needed_by"].split()), each


def test_torch_and_its_cuda_packages_are_not_locked():
    assert not [name for name in LOCKED if re.match(r"torch$|triton|nvidia-|cuda-", name)]
    assert [each for each in ASKED["serve"] if re.fullmatch(r"torch==[\d.]+", each)]
