"""How far the offline steps are, read from the data folder: manifests, and parts without one."""

from contextlib import suppress

from services.core.artifacts import Artifact, Manifest
from services.core.data_folder.steps import STEPS
from services.core.data_folder.text_statistics import TextStatistics
from services.core.errors import ArtifactError
from services.core.wire import console as wire

MAX_QUARANTINED = 100


def read_steps(data: str) -> list[wire.StepView]:
    """The state of each artifact; reads the folder, which may be an object store."""
    return [_read_step(Artifact(data, step.artifact)) for step in STEPS.values() if step.listed]


def _read_step(artifact: Artifact) -> wire.StepView:
    manifest: Manifest | None = None
    num_parts, texts = 0, None
    state: wire.StepState = "unreadable"
    with suppress(ArtifactError):  # written by another version
        # All or nothing: of an unreadable step nothing is shown.
        manifest, num_parts, texts = _read(artifact)
        state = "done" if manifest else "under-way" if num_parts else "missing"
    quarantined = manifest.quarantined[:MAX_QUARANTINED] if manifest else []
    return wire.StepView(
        artifact=artifact.name,
        command=STEPS[artifact.name].command,
        state=state,
        model=manifest.model if manifest else "",
        model_name=(manifest.model_name or "") if manifest else "",
        counts=manifest.counts if manifest else {},
        num_parts=num_parts,
        num_quarantined=manifest.num_quarantined if manifest else 0,
        quarantined=[wire.QuarantinedView(**row) for row in quarantined],
        texts=None if texts is None else _view(texts),
    )


def _read(artifact: Artifact) -> tuple[Manifest | None, int, TextStatistics | None]:
    manifest = artifact.manifest() if artifact.exists() else None
    # Rows are not read: of an artifact of an older version nothing is known.
    texts = artifact.text_statistics() if manifest and manifest.texts else None
    return manifest, artifact.num_unfinished_parts(), texts


def _view(texts: TextStatistics) -> wire.TextsView:
    return wire.TextsView(
        num_texts=texts.num_texts,
        num_distinct=texts.num_distinct,
        most_frequent=texts.most_frequent,
        most_frequent_share=round(texts.most_frequent_share, 4),
        num_empty=texts.num_empty,
        num_cut=texts.num_cut,
        warning=texts.warning(),
    )
