"""The manifest beside an adapter's weights: what it was trained on, and under which definitions.

    data/adapter/
      adapter_config.json, adapter_model.safetensors    PEFT's own files
      manifest.json                                     this record

Training writes it last and serving reads it first. Without this check, an adapter that learned
another question, or another form of preference, would give wrong answers and no error.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from services.core.drift import ScoreHistogram
from services.core.errors import ArtifactMismatch, ModelUnusable
from services.core.prompts import (
    PREFERENCE_FINGERPRINT,
    SCORING_FINGERPRINT,
    SUMMARY_FINGERPRINT,
)
from services.core.recurrence import BLOCK_SIZE
from services.core.scoring import NO, YES, Calibration

MANIFEST = "manifest.json"
_CALIBRATION_FIELDS = frozenset({"slope", "intercept", "prior", "ece_before", "ece_after"})


def current_definition() -> dict[str, Any]:
    """What an adapter must have been trained under to be served by this version."""
    return {
        "scoring": SCORING_FINGERPRINT,
        "preference": PREFERENCE_FINGERPRINT,
        "summary": SUMMARY_FINGERPRINT,
        "block_size": BLOCK_SIZE,
        "answers": [YES, NO],
    }


@dataclass(frozen=True, slots=True)
class AdapterManifest:
    """`manifest.json` of an adapter folder.

    `fingerprint` names the training run: equal ones come from equal data, configuration and base.
    `weights` is the digest of the files beside it (`checkpoints.fingerprint_checkpoint`).
    `stage` is the one that made it (`sft`, `dpo`, `rank`), `parent` the fingerprint of the adapter
    it started from ("" for none), `protocol` the way targets met negatives. `model` is the base
    model's fingerprint, `answer_tokens` the token ids of Yes and No under its template,
    `image_size` the side in pixels of the covers it has seen, `inputs` the fingerprints of the
    artifacts it was trained on, `validation` the metrics on validation users. `image_shapes` are
    height and width of covers that were prepared by `--fit grid`; None for squares, and in
    manifests of versions that knew no others.

    `calibration` turns margins into P(Yes): `slope` and `intercept`, fitted on validation users,
    `prior`, the share of targets among their rows, and the expected calibration error on such users
    without them (`ece_before`) and, fitted on other validation users, with them (`ece_after`).

    `validation_scores` is how P(Yes) was spread over validation users (`edges` and `counts` of a
    `ScoreHistogram`); None in manifests of versions that did not keep it. `encoding` is the
    fingerprint of the template that its prompts were encoded by (`PromptEncoder`); "" in manifests
    of versions that did not keep it. `preferences_by` is the identity of the `TextWriter` whose
    preferences it learned from and was validated on; "" in manifests of versions that did not keep
    it.
    """

    fingerprint: str
    weights: str
    stage: str
    parent: str
    protocol: str
    definition: dict[str, Any]
    model: str
    model_name: str
    image_size: int
    answer_tokens: dict[str, int]
    inputs: dict[str, str]
    config: dict[str, Any]
    counts: dict[str, int]
    validation: dict[str, float]
    calibration: dict[str, float]
    versions: dict[str, str]
    validation_scores: dict[str, list[float]] | None = None
    encoding: str = ""
    image_shapes: list[list[int]] | None = None
    preferences_by: str = ""

    def __post_init__(self) -> None:
        """ValueError or TypeError for values that serving cannot use."""
        for name in ("definition", "calibration"):
            if not isinstance(getattr(self, name), dict):
                raise TypeError(f"the {name} is no object")
        if missing := _CALIBRATION_FIELDS - self.calibration.keys():
            raise ValueError(f"the calibration lacks {', '.join(sorted(missing))}")
        for name in sorted(_CALIBRATION_FIELDS):
            value = self.calibration[name]
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ValueError(f"{name} of the calibration is {value!r}, not a finite number")
        if not (self.calibration["slope"] > 0 and 0 < self.calibration["prior"] < 1):
            raise ValueError("a calibration with this slope or prior would turn answers around")
        _ = self.score_histogram

    @property
    def correction(self) -> Calibration:
        """What turns this adapter's margins into P(Yes)."""
        slope, intercept, prior = (self.calibration[k] for k in ("slope", "intercept", "prior"))
        return Calibration(slope, intercept, prior)

    @property
    def score_histogram(self) -> ScoreHistogram | None:
        """The histogram of P(Yes) over validation users; None if the manifest has none."""
        if self.validation_scores is None:
            return None
        edges, counts = self.validation_scores["edges"], self.validation_scores["counts"]
        return ScoreHistogram(tuple(map(float, edges)), tuple(map(int, counts)))

    def to_json(self) -> str:
        """Readable, and the same for the same content."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_adapter_manifest(folder: str | Path) -> AdapterManifest:
    """The manifest of an adapter folder.

    Raises ModelUnusable if there is none or it cannot be read.
    """
    path = Path(folder) / MANIFEST
    try:
        return AdapterManifest(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ModelUnusable(
            f"{folder} holds no {MANIFEST}; give --adapter a folder that `msr train` wrote"
        ) from error
    except (TypeError, ValueError, KeyError) as error:
        raise ModelUnusable(
            f"{path} is not an adapter's manifest of this version ({error}); run `msr train` again"
        ) from error


def require_servable(manifest: AdapterManifest, *, model: str) -> None:
    """ArtifactMismatch if the adapter belongs to other prompts or to another base model.

    `model` is the fingerprint of the base model that would serve it.
    """
    current = current_definition()
    for name, value in current.items():
        found = manifest.definition.get(name)
        if found != value:
            raise ArtifactMismatch(
                f"the adapter {manifest.fingerprint} was trained under {name} {found!r}, this "
                f"version has {value!r}; run `msr train` again"
            )
    if manifest.model != model:
        raise ArtifactMismatch(
            f"the adapter {manifest.fingerprint} was trained on the base model {manifest.model} "
            f"({manifest.model_name}), not on {model}; serve it with its own base model"
        )
