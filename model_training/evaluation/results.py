"""The result of `msr evaluate`: every model's ranks, scores and metrics.

`evaluate.run` returns an Evaluation, `report` writes it, `--json` prints it. Rows are users, in the
order of `Evaluation.users`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_training.data.protocols import Protocol, find_protocol
from services.core.records import UserId
from services.retrieval.rankers import RANKERS

# Names of the models, in the order of every table. The last two need a multimodal model.
MODELS = (
    "random",
    "popularity",
    "trending",
    "item-knn",
    "tf-idf",
    "sasrec",
    *(ranker.name for ranker in RANKERS if ranker.is_evaluated),
    "fusion",
    "mllm",
    "mllm-fusion",
)
NEED_ENGINE = ("mllm", "mllm-fusion")

# A group of users: its name, and which users belong to it (U,).
Slice = tuple[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class ModelResult:
    """How one model ranked every user's target.

    `ranks` and `num_candidates` are (U,); rank 0 is the top, ties broken at random by the seed.
    `scores` are (U, C), the target in the first column; None if the candidates are the whole
    catalogue (protocol `full`). The probabilities have their shape, for models that have some:
    P(Yes) after and before calibration. `metrics` is flat, each with its confidence interval:
    "hr@5", "hr@5_low", "hr@5_high".
    """

    ranks: NDArray[np.int64]
    num_candidates: NDArray[np.int64]
    metrics: dict[str, float]
    scores: NDArray[np.float64] | None = None
    probabilities: NDArray[np.float64] | None = None
    raw_probabilities: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Evaluation:
    """All models on the ranking tasks of one protocol.

    `negatives` is the fingerprint of the frozen tasks, `ablate` the input that was taken from the
    multimodal model (None: nothing). `slices` names a property of users and its groups ("history
    length" -> "1-5", "6-10", ...); a group without users is left out. `comparisons` has each
    model's difference to its baseline, the best of the other models that need no engine. `facts`
    are JSON-able: counts of the data, fingerprints, versions, seconds, and "left_out", the models
    that could not be evaluated with the reason.
    """

    protocol: str
    users: tuple[UserId, ...]
    negatives: str
    ablate: str | None
    models: Mapping[str, ModelResult]
    slices: Mapping[str, Sequence[Slice]] = field(default_factory=dict)
    comparisons: Mapping[str, Mapping[str, float | str]] = field(default_factory=dict)
    calibration: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The protocol, and what was ablated; also the name of the folder of its report."""
        return self.protocol + (f"-ablate-{self.ablate}" if self.ablate else "")

    @property
    def rules(self) -> Protocol:
        """What the protocol of that name decides."""
        return find_protocol(self.protocol)

    @property
    def num_candidates(self) -> int:
        """Candidates of a user; in `full`, where users differ, their mean, rounded."""
        counts = [result.num_candidates.mean() for result in self.models.values()]
        return round(float(np.mean(counts)))

    def to_json_dict(self) -> dict[str, Any]:
        """What `--json` prints: model -> metrics, and beside the models the facts.

        Facts such as "seconds" and "left_out" are keys at the top. Numbers have four digits: there
        are too few users for more.
        """
        return {
            **{name: _rounded(result.metrics) for name, result in self.models.items()},
            "protocol": self.protocol,
            "users": len(self.users),
            "candidates": self.num_candidates,
            "negatives": self.negatives,
            "ablate": self.ablate,
            "comparisons": {name: _rounded(found) for name, found in self.comparisons.items()},
            "calibration": {name: _rounded(found) for name, found in self.calibration.items()},
            **self.facts,
        }


def _rounded(values: Mapping[str, float | str]) -> dict[str, float | str]:
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in values.items()
    }
