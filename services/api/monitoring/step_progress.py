"""How far the offline steps are, read from the data folder: manifests, and parts without one."""

from contextlib import suppress

from services.core.artifacts import Artifact
from services.core.data_folder.steps import STEPS
from services.core.errors import ArtifactError
from services.core.wire import console as wire

MAX_QUARANTINED = 100


def read_steps(data: str) -> list[wire.StepView]:
    """The state of each artifact; reads the folder, which may be an object store."""
    return [_read_step(Artifact(data, step.artifact)) for step in STEPS.values() if step.listed]


def _read_step(artifact: Artifact) -> wire.StepView:
    manifest, num_parts = None, 0
    state: wire.StepState = "unreadable"
    with suppress(ArtifactError):  # written by another version
        # Both or neither: of an unreadable step nothing is told.
        manifest, num_parts = (
            artifact.manifest() if artifact.exists() else None,
            artifact.num_unfinished_parts(),
        )
        state = "done" if manifest else "under-way" if num_parts else "missing"
    quarantined = manifest.quarantined[:MAX_QUARANTINED] if manifest else []
    return wire.StepView(
        artifact=artifact.name,
        command=STEPS[artifact.name].command,
        state=state,
        model=manifest.model if manifest else "",
        counts=manifest.counts if manifest else {},
        num_parts=num_parts,
        num_quarantined=manifest.num_quarantined if manifest else 0,
        quarantined=[wire.QuarantinedView(**row) for row in quarantined],
    )
