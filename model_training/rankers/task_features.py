"""The features of ranking tasks, as fusion learns from them and as an evaluation measures them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model_training.data.ranking_tasks import RankingTask
from services.core.errors import ArtifactMismatch
from services.retrieval.cheap_rankers import CheapRankers
from services.retrieval.features import FEATURES


def read_features(rankers: CheapRankers, tasks: Sequence[RankingTask]) -> NDArray[np.float64]:
    """The features of every user's candidates, the target first: (U, C, F).

    ArtifactMismatch if one is not a finite number.
    """
    rows = [rankers.features(task.history, task.candidates) for task in tasks]
    values = np.stack(rows).astype(np.float64)
    for row, task in zip(values, tasks, strict=True):
        require_finite(row, task)
    return values


def require_finite(values: NDArray[np.float64], task: RankingTask) -> None:
    """ArtifactMismatch if a feature (C, F) of the task is not a finite number."""
    if not np.isfinite(values).all():
        candidate, feature = np.argwhere(~np.isfinite(values))[0]
        raise ArtifactMismatch(
            f"feature {FEATURES[feature]} of candidate {candidate} of user {task.user_id!r} is "
            f"{values[candidate, feature]}; run `msr fit-retrieval` again"
        )
