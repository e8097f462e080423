"""Checks what is on disk: the adapter that would score, and the artifacts of the data folder."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec

from services.core.artifacts import Artifact, Manifest
from services.core.data_folder.steps import SERVED_PREFERENCES, STEPS
from services.core.errors import MsrError
from services.core.prompts import (
    PREFERENCE_FINGERPRINT,
    SCORING_FINGERPRINT,
    SUMMARY_FINGERPRINT,
)
from services.core.recurrence import BLOCK_SIZE
from services.deployment.assemble import EngineChoice
from services.doctor.findings import Finding, note, ok, problem, problem_of
from services.engines.adapter_folders import AdapterFolders
from services.engines.adapter_manifest import require_servable
from services.engines.checkpoints import identify_model, is_merged, manifest_in_use, read_adapter

# What serving needs, in the order of the steps; any of a row's artifacts will do.
_NEEDED = (("items",), ("interactions",), ("summaries",), SERVED_PREFERENCES)
# What this version requires of an artifact's definition.
_DEFINITIONS: dict[str, dict[str, Any]] = {
    "summarize-images": {"prompt": SUMMARY_FINGERPRINT},
    "build-preferences": {"prompt": PREFERENCE_FINGERPRINT, "block_size": BLOCK_SIZE},
    "build-examples": {"prompt": SCORING_FINGERPRINT},
}


# --- the adapter ---------------------------------------------------------------------------------


def check_adapter(
    data: str, choose: Callable[[], EngineChoice], adapters: str | None
) -> Iterator[Finding]:
    """Can the adapter be served? `adapters`: the folder of further ones, None for the default."""
    choice = choose()
    if choice.on_servers:
        yield from _check_trained(data)
        return
    manifest = manifest_in_use(choice.model, choice.adapter)
    merged = manifest if is_merged(choice.model) else None
    model = merged.model if merged is not None else identify_model(choice.model)
    if manifest is not None:
        require_servable(manifest, model=model)
    if manifest is None:
        yield note(
            f"none: the base model {choice.model} answers Yes or No without an adapter.",
            "Run `msr train`, or name one with --adapter.",
        )
    else:
        yield ok(
            f"{choice.adapter or choice.model} (stage {manifest.stage}) fits its base model and "
            "this version's prompts."
        )
    folder = adapters or str(Path(data) / "adapters")
    for name, found in AdapterFolders(folder, {}, model=model).scan().items():
        if found.problem:
            yield note(
                f"{name} in {folder} cannot be activated: {found.problem}.",
                "Put the complete folder of one training there, or remove it.",
            )


def _check_trained(data: str) -> Iterator[Finding]:
    """For vLLM: the servers hold the weights, so a local adapter is only a copy."""
    folder = Path(data) / "adapter"
    if not folder.is_dir():
        yield ok("the model servers have it.")
        return
    manifest = read_adapter(folder)
    require_servable(manifest, model=manifest.model)
    yield ok(
        f"{folder} (stage {manifest.stage}) fits this version's prompts; the servers hold copies."
    )


# --- the data folder -----------------------------------------------------------------------------


def check_data(data: str) -> Iterator[Finding]:
    """Are the artifacts finished, up to date and complete?"""
    filesystem, base = fsspec.core.url_to_fs(data)
    if not filesystem.isdir(base):
        yield note(
            f"there is no {data} yet.",
            "Run `msr prepare-catalogue` (docs/tutorial.md), or `msr demo` for a first look.",
        )
        return
    done: list[str] = []
    for name in STEPS:
        yield from _check_artifact(data, name, done)
    if done:
        yield ok(f"finished in {data}: {', '.join(done)}.")
    for names in _NEEDED:
        if not any(Artifact(data, name).exists() for name in names):
            yield note(
                f"{data} holds no finished {names[-1]}.",
                f"The next step is `msr {STEPS[names[-1]].command} --data {data}`.",
            )
            return


def _check_artifact(data: str, name: str, done: list[str]) -> Iterator[Finding]:
    """Findings of one artifact; none if it was never started. A good one is added to `done`."""
    artifact = Artifact(data, name)
    command = f"msr {STEPS[name].command}"
    if not artifact.exists():
        filesystem, folder = fsspec.core.url_to_fs(data)
        if filesystem.isdir(f"{folder}/{name}"):
            yield note(
                f"{name} is not finished.", f"Run `{command}` again: it resumes where it stopped."
            )
        return
    try:
        manifest = artifact.manifest()
        if not artifact.is_whole():
            yield problem(
                f"parts of {name} that its manifest names are missing.",
                f"Delete {artifact.location} and run `{command}` again.",
            )
            return
        reason = _staleness(data, manifest)
    except MsrError as error:
        yield problem_of(error)
        return
    if reason:
        finding = problem if _is_served(data, name) else note
        yield finding(f"{name} {reason}.", f"Run `{command}` again.")
        return
    done.append(name)
    if manifest.num_quarantined:
        first = manifest.quarantined[0]
        yield note(
            f"{name} left out {manifest.num_quarantined:,} rows; the first: {first['row']}: "
            f"{first['reason']}.",
            f"See {artifact.location}/manifest.json; to try them again, run "
            f"`{command} --retry-quarantined`.",
        )


def _staleness(data: str, manifest: Manifest) -> str:
    """Why an artifact does not fit this version or its inputs; "" if it does."""
    asked = _DEFINITIONS.get(manifest.step, {})
    differing = [key for key, value in asked.items() if manifest.definition.get(key) != value]
    if differing:
        return f"was made under another {' and '.join(differing).replace('_', ' ')}"
    if manifest.step == STEPS["items"].command:
        return ""  # its inputs are the data set's files
    for name, used in manifest.inputs.items():
        source = Artifact(data, name)
        if name in STEPS and source.exists() and source.manifest().fingerprint != used:
            return f"was made from other {name} than the data folder has now"
    return ""


def _is_served(data: str, name: str) -> bool:
    """Whether `msr serve` publishes this artifact."""
    for names in _NEEDED:
        if name in names:
            return next(each for each in names if Artifact(data, each).exists()) == name
    return False
