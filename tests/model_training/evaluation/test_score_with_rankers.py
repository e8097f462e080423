"""Ranking by features: the right column, chance where nothing is known, the whole catalogue."""

import numpy as np
import pytest

from model_training.data.ranking_tasks import RankingTask
from model_training.evaluation.score_with_rankers import (
    FEATURE_OF,
    rank_in_catalogue,
    score_features,
    scorer_of,
)
from model_training.rankers.task_features import read_features
from services.core.errors import ArtifactMismatch
from services.retrieval.features import FEATURES


class NumberedRankers:
    """Items "0" to "9"; every feature of an item is its number, if nothing else is said.

    A real artifact cannot hold numbers that are not finite, or features chosen by a test.
    """

    num_items = 10

    def __init__(self, values=None):
        self._values = np.arange(10) if values is None else values

    def index_of(self, item_id):
        return int(item_id) if int(item_id) < 10 else None

    def features(self, history, candidates):
        return np.stack([np.full(len(FEATURES), self._values[int(c)]) for c in candidates])

    def features_of_all(self, history):
        return np.stack([np.full(len(FEATURES), value) for value in self._values])


def a_task(target="7", history=("9",), negatives=("1", "8")) -> RankingTask:
    return RankingTask("u1", tuple(history), target, tuple(negatives))


@pytest.mark.parametrize("model", FEATURE_OF)
def test_every_single_ranker_reads_its_own_column(model: str):
    values = np.arange(len(FEATURES), dtype=float)[None, None, :]

    scores = score_features(values, {model: scorer_of(model)})[model]
    assert FEATURES[int(scores[0, 0])] == FEATURE_OF[model]


def test_features_are_read_with_the_target_first():
    values = read_features(NumberedRankers(), [a_task()])

    assert values[0, :, 0].tolist() == [7, 1, 8]


def test_in_the_catalogue_what_the_user_took_before_is_no_rival():
    found = rank_in_catalogue(NumberedRankers(), [a_task()], {"sasrec": scorer_of("sasrec")})
    ranking, sample = found["sasrec"]

    assert ranking.ranks.tolist() == [1]  # below "8", not below "9"
    assert ranking.num_candidates.tolist() == [9]
    assert sample[0, 0] == 7  # the target, then all rivals: there are fewer than are sampled
    assert sorted(sample[0, 1:]) == [0, 1, 2, 3, 4, 5, 6, 8]


def test_in_the_catalogue_a_constant_scorer_gets_what_chance_gets():
    tasks = [a_task()] * 4000
    found = rank_in_catalogue(NumberedRankers(np.zeros(10)), tasks, {"sasrec": scorer_of("sasrec")})

    for model in ("sasrec", "random"):
        ranking, _ = found[model]
        assert ranking.per_user()["auc_user"].mean() == pytest.approx(0.5, abs=0.02)
        assert ranking.hr(3) == pytest.approx(3 / 9, abs=0.03)


def test_a_feature_that_is_no_number_is_refused():
    values = np.arange(10.0)
    values[1] = np.nan

    with pytest.raises(ArtifactMismatch, match="candidate 1 of user 'u1' is nan"):
        read_features(NumberedRankers(values), [a_task()])


def test_an_item_that_the_rankers_do_not_know_is_refused():
    with pytest.raises(ArtifactMismatch, match="do not know item '11'"):
        rank_in_catalogue(NumberedRankers(), [a_task(target="11")], {})
