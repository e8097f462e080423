"""Ranks users' targets by the cheap rankers and their fusion.

`CheapRankers` gives the features and `Fusion` weighs them, as in service. A single ranker is one
column of the features.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model_training.data.ranking_tasks import RankingTask
from model_training.rankers.task_features import require_finite
from model_training.scoring.metrics import Ranking
from services.core.errors import ArtifactMismatch
from services.core.records import ItemId
from services.retrieval.cheap_rankers import CheapRankers
from services.retrieval.features import FEATURES
from services.retrieval.rankers import RANKERS

# The feature by which each of these models ranks.
FEATURE_OF = {
    "popularity": "popularity",
    "trending": "trending",
    "item-knn": "neighbors",
    "tf-idf": "titles",
    "sasrec": "sequential",
    **{ranker.name: ranker.name for ranker in RANKERS if ranker.is_evaluated},
}
RANDOM = "random"
# Other items per user for the pooled AUC in a whole catalogue, where all scores are too many.
NUM_SAMPLED_ITEMS = 100
SEED = 2025

# From a user's features (C, F) to scores (C,).
ScoreFeatures = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def score_features(
    values: NDArray[np.float64], scorers: Mapping[str, ScoreFeatures]
) -> dict[str, NDArray[np.float64]]:
    """Scores (U, C) of features (U, C, F) by each model."""
    return {
        name: np.stack([score(candidates) for candidates in values])
        for name, score in scorers.items()
    }


def score_at_random(num_users: int, num_candidates: int) -> NDArray[np.float64]:
    """Random scores (U, C)."""
    return np.random.default_rng(SEED).random((num_users, num_candidates))


def scorer_of(model: str) -> ScoreFeatures:
    """The scoring function of a model that is one feature."""
    column = FEATURES.index(FEATURE_OF[model])
    return lambda values: np.asarray(values[:, column], np.float64)


def rank_in_catalogue(
    rankers: CheapRankers, tasks: Sequence[RankingTask], scorers: Mapping[str, ScoreFeatures]
) -> dict[str, tuple[Ranking, NDArray[np.float64]]]:
    """The rank of each target among all items outside the history, and a sample of the scores
    (U, 1 + S): the target's, and those of S other items drawn uniformly.

    Ties are broken at random. One user's features of all items are in memory at a time.
    """
    models = [*scorers, RANDOM]
    ranks = {name: np.zeros(len(tasks), np.int64) for name in models}
    num_candidates = np.zeros(len(tasks), np.int64)
    longest = max(len(task.history) for task in tasks)
    num_sampled = min(NUM_SAMPLED_ITEMS, rankers.num_items - longest - 1)
    samples = {name: np.zeros((len(tasks), 1 + num_sampled)) for name in models}
    samples[RANDOM] = score_at_random(*samples[RANDOM].shape)
    rng = np.random.default_rng(SEED)
    for row, task in enumerate(tasks):
        target = _index_of(rankers, task.target)
        others = np.ones(rankers.num_items, bool)
        others[[_index_of(rankers, item_id) for item_id in task.history]] = False
        others[target] = False
        num_candidates[row] = others.sum() + 1
        ranks[RANDOM][row] = rng.integers(num_candidates[row])
        if not scorers:
            continue
        sampled = rng.choice(np.flatnonzero(others), num_sampled, replace=False)
        values = rankers.features_of_all(task.history).astype(np.float64)
        require_finite(values, task)
        for name, score in scorers.items():
            scores = score(values)
            above = int((scores[others] > scores[target]).sum())
            equal = int((scores[others] == scores[target]).sum())
            ranks[name][row] = above + rng.integers(equal + 1)
            samples[name][row] = scores[[target, *sampled]]
    return {name: (Ranking(ranks[name], num_candidates), samples[name]) for name in models}


def _index_of(rankers: CheapRankers, item_id: ItemId) -> int:
    index = rankers.index_of(item_id)
    if index is None:
        raise ArtifactMismatch(
            f"the cheap rankers do not know item {item_id!r}; run `msr fit-retrieval` again"
        )
    return index
