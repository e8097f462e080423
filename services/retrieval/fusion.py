"""Fusion: the weight of each ranker, learned from validation users.

    logit(c) = intercept + sum over features of coefficient * (value - mean) / scale

One logistic model over the cheap features (`fusion`) orders all candidates; a second one, which
knows the multimodal model's margin as well (`mllm-fusion`), orders those that the model has scored.
Both read the artifact `ranker` that `msr fit-ranker` makes. A term of the sum is what a feature
contributed, in log-odds over a candidate with an average value, so the API shows it as it is.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.core.artifacts import Artifact
from services.core.errors import ArtifactMismatch
from services.retrieval.features import FEATURES, MARGIN

CHEAP = "fusion"
WITH_MARGIN = "mllm-fusion"

# The artifact `ranker` serves. Weights for the margins of another adapter are an artifact of this
# prefix and the adapter's fingerprint (`msr fit-ranker --for-adapter`).
ADAPTER_RANKER = "ranker-"


@dataclass(frozen=True)
class Fusion:
    """A logistic model over standardized features; every tuple is in the order of `features`."""

    features: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float

    def contributions(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """What each feature adds to the log-odds: (C, F) -> (C, F).

        ValueError if `values` does not have this fusion's features as columns.
        """
        matrix = np.asarray(values, np.float64)
        if matrix.ndim != 2 or matrix.shape[1] != len(self.features):
            raise ValueError(f"values {matrix.shape} do not hold the features {self.features}")
        standardized = (matrix - np.asarray(self.means)) / np.asarray(self.scales)
        return np.asarray(standardized * np.asarray(self.coefficients))

    def logits(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Log-odds that each candidate is taken next, higher first: (C, F) -> (C,)."""
        return np.asarray(self.contributions(values).sum(axis=1) + self.intercept)


@dataclass(frozen=True)
class Ranker:
    """The weights that order candidates, from `msr fit-ranker`.

    `retrieval` is the definition of the cheap rankers (`CheapRankers.definition`) whose features it
    weighs. `with_margin` weighs margins of the model `model` with the adapter `adapter` ("" for
    none), and is None if the ranker was fitted without margins; then both are "".
    """

    fingerprint: str
    retrieval: str
    model: str
    adapter: str
    cheap: Fusion
    with_margin: Fusion | None

    @classmethod
    def load(cls, data: str, name: str = "ranker") -> "Ranker":
        """Read the artifact in the data folder.

        Raises ArtifactMissing if `msr fit-ranker` has not run, ArtifactMismatch if it weighs other
        features than this version has.
        """
        artifact = Artifact(data, name)
        manifest = artifact.manifest()
        try:
            rows = {row["model"]: row for row in artifact.read().to_pylist()}
            ranker = cls(
                fingerprint=manifest.fingerprint,
                retrieval=str(manifest.definition["retrieval"]),
                model=manifest.model,
                adapter=str(manifest.definition["adapter"]),
                cheap=_fusion(rows[CHEAP]),
                with_margin=_fusion(rows[WITH_MARGIN]) if WITH_MARGIN in rows else None,
            )
        except (KeyError, TypeError) as error:
            raise ArtifactMismatch(
                f"{artifact.location} was made by another version; run `msr fit-ranker` again"
            ) from error
        expected = {CHEAP: FEATURES, WITH_MARGIN: (*FEATURES, MARGIN)}
        for model, fusion in ((CHEAP, ranker.cheap), (WITH_MARGIN, ranker.with_margin)):
            if fusion is not None and fusion.features != expected[model]:
                raise ArtifactMismatch(
                    f"{artifact.location} weighs {', '.join(fusion.features)}, this version has "
                    f"{', '.join(expected[model])}; run `msr fit-ranker` again"
                )
        return ranker

    def require_retrieval(self, definition: str) -> None:
        """ArtifactMismatch if the cheap rankers were fitted by another definition.

        The same features from rankers that were made otherwise have other scales and meanings.
        """
        if self.retrieval != definition:
            raise ArtifactMismatch(
                f"ranker {self.fingerprint} weighs features of cheap rankers that were fitted by "
                f"definition {self.retrieval}, those in use by {definition}; run `msr fit-ranker` "
                "again"
            )

    def weighs(self, model: str, adapter: str) -> bool:
        """Whether the margins that it weighs, if it weighs any, are this adapter's."""
        return self.with_margin is None or (self.model, self.adapter) == (model, adapter)

    def without_margin(self) -> "Ranker":
        """The cheap features' weights alone: they are the same whichever adapter scores."""
        return replace(self, model="", adapter="", with_margin=None)

    def require_engine(self, *, model: str, adapter: str) -> None:
        """ArtifactMismatch if margins are weighed, and another model or adapter gives them now."""
        if self.weighs(model, adapter):
            return
        raise ArtifactMismatch(
            f"ranker {self.fingerprint} weighs the margins of adapter "
            f"{self.adapter or 'none'} on model {self.model}, the engine has adapter "
            f"{adapter or 'none'} on model {model}; run `msr fit-ranker` with this engine, or "
            "`msr fit-ranker --no-model` for weights without margins"
        )


def _fusion(row: dict[str, Any]) -> Fusion:
    return Fusion(
        features=tuple(row["features"]),
        means=tuple(row["means"]),
        scales=tuple(row["scales"]),
        coefficients=tuple(row["coefficients"]),
        intercept=float(row["intercept"]),
    )
