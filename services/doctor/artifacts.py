"""What lies on disk: the adapter that would score, and the steps' artifacts in the data folder."""

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
from services.doctor.findings import Finding, Status, problem_of
from services.engines.adapter_folders import AdapterFolders
from services.engines.adapter_manifest import require_servable
from services.engines.checkpoints import identify_model, is_merged, manifest_in_use, read_adapter

# What serving needs, in the order in which it is made; any of a row's artifacts will do.
_NEEDED = (("items",), ("interactions",), ("summaries",), SERVED_PREFERENCES)
# What an artifact's definition must say for this version to use it.
_DEFINITIONS: dict[str, dict[str, Any]] = {
    "summarize-images": {"prompt": SUMMARY_FINGERPRINT},
    "build-preferences": {"prompt": PREFERENCE_FINGERPRINT, "block_size": BLOCK_SIZE},
    "build-examples": {"prompt": SCORING_FINGERPRINT},
}


# --- the adapter ---------------------------------------------------------------------------------


def look_at_adapter(
    data: str, choose: Callable[[], EngineChoice], adapters: str | None
) -> Iterator[Finding]:
    """Would the adapter be served? `adapters`: the folder of further ones, None for the usual."""
    choice = choose()
    if choice.kind == "vllm":
        yield from _look_at_trained(data)
        return
    manifest = manifest_in_use(choice.model, choice.adapter)
    merged = manifest if is_merged(choice.model) else None
    model = merged.model if merged is not None else identify_model(choice.model)
    if manifest is not None:
        require_servable(manifest, model=model)
    if manifest is None:
        yield Finding(
            "adapter",
            "note",
            f"none: the base model {choice.model} answers Yes or No by itself.",
            "Run `msr train`, or name one with --adapter.",
        )
    else:
        yield Finding(
            "adapter",
            "ok",
            f"{choice.adapter or choice.model} (stage {manifest.stage}) fits its base model and "
            "this version's prompts.",
        )
    folder = adapters or str(Path(data) / "adapters")
    for name, found in AdapterFolders(folder, {}, model=model).scan().items():
        if found.problem:
            yield Finding(
                "adapter",
                "note",
                f"{name} in {folder} cannot be activated: {found.problem}.",
                "Put the whole folder of one training there, or take it away.",
            )


def _look_at_trained(data: str) -> Iterator[Finding]:
    """Of a deployment on vLLM: the servers hold the weights, so what is here is a copy at most."""
    folder = Path(data) / "adapter"
    if not folder.is_dir():
        yield Finding("adapter", "ok", "the model servers hold it.")
        return
    manifest = read_adapter(folder)
    require_servable(manifest, model=manifest.model)
    yield Finding(
        "adapter",
        "ok",
        f"{folder} (stage {manifest.stage}) fits this version's prompts; the servers hold theirs.",
    )


# --- the data folder -----------------------------------------------------------------------------


def look_at_data(data: str) -> Iterator[Finding]:
    """Which steps are done, on what they should be, and what did they leave out?"""
    filesystem, base = fsspec.core.url_to_fs(data)
    if not filesystem.isdir(base):
        yield Finding(
            "data",
            "note",
            f"there is no {data} yet.",
            "Run `msr prepare-catalogue` (docs/tutorial.md), or `msr demo` for a first look.",
        )
        return
    done: list[str] = []
    for name in STEPS:
        yield from _look_at_artifact(data, name, done)
    if done:
        yield Finding("data", "ok", f"finished in {data}: {', '.join(done)}.")
    for names in _NEEDED:
        if not any(Artifact(data, name).exists() for name in names):
            yield Finding(
                "data",
                "note",
                f"{data} holds no finished {names[-1]}.",
                f"The next step is `msr {STEPS[names[-1]].command} --data {data}`.",
            )
            return


def _look_at_artifact(data: str, name: str, done: list[str]) -> Iterator[Finding]:
    """Nothing for one that was never begun; a good one is added to `done`."""
    artifact = Artifact(data, name)
    command = f"msr {STEPS[name].command}"
    if not artifact.exists():
        filesystem, folder = fsspec.core.url_to_fs(artifact.location)
        if filesystem.isdir(folder):
            yield Finding(
                "data",
                "note",
                f"{name} is not finished.",
                f"Run `{command}` again: it goes on where it was stopped.",
            )
        return
    try:
        manifest = artifact.manifest()
        if not artifact.is_whole():
            yield Finding(
                "data",
                "problem",
                f"parts of {name} are gone, although its manifest names them.",
                f"Delete {artifact.location} and run `{command}` again.",
            )
            return
        reason = _staleness(data, manifest)
    except MsrError as error:
        yield problem_of("data", error)
        return
    if reason:
        status: Status = "problem" if _is_served(data, name) else "note"
        yield Finding("data", status, f"{name} {reason}.", f"Run `{command}` again.")
        return
    done.append(name)
    if manifest.num_quarantined:
        first = manifest.quarantined[0]
        yield Finding(
            "data",
            "note",
            f"{name} left out {manifest.num_quarantined:,} rows; the first: {first['row']}: "
            f"{first['reason']}.",
            f"See {artifact.location}/manifest.json; what can be made good is tried again by "
            f"`{command} --retry-quarantined`.",
        )


def _staleness(data: str, manifest: Manifest) -> str:
    """Why an artifact does not go with this version and what lies beside it; "" if it does."""
    asked = _DEFINITIONS.get(manifest.step, {})
    differing = [key for key, value in asked.items() if manifest.definition.get(key) != value]
    if differing:
        return f"was made under another {' and '.join(differing).replace('_', ' ')}"
    if manifest.step == STEPS["items"].command:
        return ""  # its inputs are the source's files
    for name, used in manifest.inputs.items():
        source = Artifact(data, name)
        if name in STEPS and source.exists() and source.manifest().fingerprint != used:
            return f"was made from other {name} than lie beside it"
    return ""


def _is_served(data: str, name: str) -> bool:
    """Whether `msr serve` would publish this artifact."""
    for names in _NEEDED:
        if name in names:
            return next(each for each in names if Artifact(data, each).exists()) == name
    return False
