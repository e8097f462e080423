"""Checks what the steps of the road need beyond serving: `msr doctor --for STEP`.

A machine that only serves needs none of it, so without `--for` what is missing is a note. A step
that was named and would fail is a problem.
"""

import importlib
import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement

from services.doctor.findings import Finding, note, ok, problem
from services.doctor.machine import installed_version
from services.process.step_packages import NEEDED, Package, missing_packages, to_install
from services.telemetry.build import DISTRIBUTION

# What a step imports at its start: a package may be there and fail to load.
_IMPORTED_BY = {
    "train": ("model_training.finetune.train", "model_training.finetune.stages.sft"),
    "evaluate": ("model_training.evaluation.report",),
}


def check_steps(
    asked: Sequence[str],
    config: Path,
    requires: Sequence[str] | None = None,
    version_of: Callable[[str], str] = importlib.metadata.version,
) -> Iterator[Finding]:
    """Can these steps start, training by this configuration? Without any asked for: a note on all.

    `requires` as in the metadata of the distribution.
    """
    if requires is None:
        requires = _requirements()
    if not asked:
        yield _overview()
        return
    for step in dict.fromkeys(asked):
        yield from _check_step(step, config, requires, version_of)


def _overview() -> Finding:
    lacking = {step: missing for step in NEEDED if (missing := missing_packages(step))}
    if not lacking:
        return ok(f"the packages of every step are there: {', '.join(NEEDED)} too.")
    parts = [
        f"`msr {step}` ({', '.join(package.distribution for package in missing)})"
        for step, missing in lacking.items()
    ]
    packages = [package for missing in lacking.values() for package in missing]
    return note(
        f"this environment serves, and lacks packages of {', '.join(parts)}.",
        f"Where these steps are to run: `{to_install(packages)}`; `msr doctor --for STEP` checks.",
    )


def _check_step(
    step: str, config: Path, requires: Sequence[str], version_of: Callable[[str], str]
) -> Iterator[Finding]:
    missing = missing_packages(step)
    for package in missing:
        yield problem(
            f"`msr {step}` would fail: {package.distribution} is not installed.",
            f"Run `{to_install([package])}`.",
        )
    others = [package for package in NEEDED[step] if package not in missing]
    for package in others:
        if wrong := _out_of_range(package, requires, version_of):
            yield problem(
                f"`msr {step}` was not tested with {wrong}.", f"Run `{to_install([package])}`."
            )
    if missing:
        return
    for module in _IMPORTED_BY.get(step, ()):
        try:
            importlib.import_module(module)
        except (ImportError, RuntimeError, OSError) as error:
            first = str(error).strip().partition("\n")[0]
            yield problem(
                f"`msr {step}` would fail: {first}.",
                f"Run `{to_install(others)}` in an environment of its own.",
            )
            return
    if step == "train":
        _require_configured(config)
    yield ok(f"`msr {step}` has the packages that it needs.")


def _require_configured(config: Path) -> None:
    """Raises what `msr train` would for the trackers and the method of this configuration."""
    import torch

    from model_training.finetune import peft_methods, tracking
    from model_training.finetune.config import load_config

    loaded = load_config(config)
    tracking.reporting(loaded, None, None)
    peft_methods.require_hardware(loaded, has_cuda=torch.cuda.is_available())


def _requirements() -> Sequence[str]:
    try:
        return importlib.metadata.requires(DISTRIBUTION) or ()
    except importlib.metadata.PackageNotFoundError:
        return ()


def _out_of_range(
    package: Package, requires: Sequence[str], version_of: Callable[[str], str]
) -> str:
    """The installed version and the tested range, if it is outside; "" else."""
    version = installed_version(package.distribution, version_of)
    needs = [
        need for need in map(Requirement, requires) if need.name.lower() == package.distribution
    ]
    for need in needs:
        if version and not need.specifier.contains(version, prereleases=True):
            return f"{need.name} {version} (tested: {need.specifier})"
    return ""
