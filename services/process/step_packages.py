"""The packages that a step needs beyond those of serving, and what to install when one is missing.

Most steps need the extra `serve` alone. The others fail hours into the data flow where the rest is
missing, so `msr doctor --for STEP` and the step itself look before anything long.
"""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import NamedTuple

from services.core.errors import InputError


class Package(NamedTuple):
    """A package by its distribution, the module that is imported, and the extra that brings it."""

    distribution: str
    module: str
    extra: str


NEEDED: dict[str, tuple[Package, ...]] = {
    "train": (
        Package("trl", "trl", "train"),
        Package("peft", "peft", "train"),
        Package("accelerate", "accelerate", "train"),
        Package("datasets", "datasets", "train"),
        Package("pyyaml", "yaml", "train"),
    ),
    "evaluate": (
        Package("matplotlib", "matplotlib", "train"),
        Package("jinja2", "jinja2", "train"),
    ),
    "serve-model": (Package("vllm", "vllm", "vllm"),),
}
# What a configuration of training may ask for.
TENSORBOARD = Package("tensorboard", "tensorboard", "train")


def missing_packages(step: str) -> list[Package]:
    """Those that this step needs and that cannot be imported."""
    return [package for package in NEEDED[step] if not is_there(package.module)]


def is_there(module: str) -> bool:
    """Whether a module of this name can be found; it is not imported."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # what finders of others, and modules without a spec, raise
        return False


def require_packages(step: str) -> None:
    """InputError with the command to install what this step needs, if any of it is missing."""
    if missing := missing_packages(step):
        names = ", ".join(package.distribution for package in missing)
        raise InputError(
            f"`msr {step}` needs {names}, which this environment lacks; run `{to_install(missing)}`"
        )


def to_install(packages: Iterable[Package]) -> str:
    """The command that installs these, by the extras that bring them."""
    extras = ",".join(dict.fromkeys(package.extra for package in packages))
    return f'pip install "mllm-msr[{extras}]"'
