"""How far the offline steps are, read from the data folder: manifests, and parts without one."""

from services.core.artifacts import Artifact
from services.core.data_folder.steps import STEPS
from services.core.errors import ArtifactError
from services.core.wire import console as wire

MAX_QUARANTINED = 100


def read_steps(data: str) -> list[wire.StepView]:
    """The state of each artifact; reads the folder, which may be an object store."""
    return [_read_step(Artifact(data, step.artifact)) for step in STEPS.values() if step.listed]


def _read_step(artifact: Artifact) -> wire.StepView:
    command = STEPS[artifact.name].command
    try:
        manifest = artifact.manifest() if artifact.exists() else None
        num_parts = artifact.num_unfinished_parts()
    except ArtifactError:  # written by another version
        return _step(artifact.name, command, "unreadable", 0)
    if manifest is None:
        return _step(artifact.name, command, "under-way" if num_parts else "missing", num_parts)
    return wire.StepView(
        artifact=artifact.name,
        command=command,
        state="done",
        model=manifest.model,
        counts=manifest.counts,
        num_parts=num_parts,
        num_quarantined=manifest.num_quarantined,
        quarantined=[wire.QuarantinedView(**row) for row in manifest.quarantined[:MAX_QUARANTINED]],
    )


def _step(artifact: str, command: str, state: wire.StepState, num_parts: int) -> wire.StepView:
    return wire.StepView(
        artifact=artifact,
        command=command,
        state=state,
        model="",
        counts={},
        num_parts=num_parts,
        num_quarantined=0,
        quarantined=[],
    )
