"""Fitting the cheap rankers: what they may see, and that they are right and repeatable."""

import math
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from model_training import fit_retrieval
from model_training.metrics import auc, rank_targets
from model_training.negatives import load_trials
from services.core.errors import ArtifactMismatch
from services.core.splits import split_users
from services.retrieval.rankers import CheapRankers
from tests.artifact_builders import write_interactions, write_items
from tests.model_training.builders import some_histories

MICROLENS = Path(
    os.environ.get(
        "MSR_MICROLENS", Path(__file__).parents[2].parent / "shared" / "data" / "microlens"
    )
)


def dense(histories: list[list[int]], num_items: int) -> np.ndarray:
    """Cosine between items' sets of users, by the formula."""
    takers = [
        {u for u, history in enumerate(histories) if item in history} for item in range(num_items)
    ]
    return np.array(
        [
            [
                len(a & b) / math.sqrt(len(a) * len(b)) if a and b and i != j else 0.0
                for j, b in enumerate(takers)
            ]
            for i, a in enumerate(takers)
        ]
    )


def test_weights_are_the_cosine_of_the_takers():
    histories = [[0, 1, 2], [0, 1], [1, 3, 3], [2]]
    popularity = np.array([2, 3, 2, 1, 0])

    found = fit_retrieval.fit_neighbors(histories, popularity, num_neighbors=10)

    assert found.toarray() == pytest.approx(dense(histories, 5), abs=1e-6)


def test_only_the_most_alike_neighbors_are_kept_best_first():
    histories = [[0, 1, 2], [0, 1], [0, 1], [0, 3], [3]]
    popularity = np.array([4, 3, 1, 2])

    found = fit_retrieval.fit_neighbors(histories, popularity, num_neighbors=2)

    assert found.indices[: found.indptr[1]].tolist() == [1, 2]


def test_targets_of_validation_and_test_users_are_not_seen():
    histories = some_histories()
    split = split_users(list(histories))

    visible = fit_retrieval.visible_histories(histories)

    for user, history in histories.items():
        whole = split[user] == "train"
        assert visible[user] == (history if whole else history[:-1])


def test_a_held_out_user_without_a_history_gives_nothing():
    held_out = next(
        u for u, part in split_users([f"u{k}" for k in range(30)]).items() if part != "train"
    )
    histories = some_histories() | {held_out: ["i1"]}

    assert held_out not in fit_retrieval.visible_histories(histories)


def test_rankers_load_what_was_fitted(data: str):
    fit_retrieval.run(data)
    rankers = CheapRankers.load(data)

    visible = fit_retrieval.visible_histories(some_histories())
    takers = sum("i0" in history for history in visible.values())
    assert rankers.score([], ["i0"])[0].popularity == takers > 0
    assert rankers.retrieve(["i0"], limit=3, exclude=["i0"])[0].source == "neighbors"


def test_the_same_data_give_the_same_bytes_without_a_warning(data: str, tmp_path: Path):
    def fitted(folder: str) -> list[bytes]:
        write_items(folder, {f"i{number}": "thing" for number in range(40)})
        write_interactions(folder, some_histories())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fit_retrieval.run(folder)
        files = sorted((Path(folder) / "retrieval").rglob("*.*"))
        return [file.read_bytes() for file in files if file.is_file()]

    assert fitted(str(tmp_path / "one")) == fitted(str(tmp_path / "two"))


def test_new_interactions_are_fitted_again(data: str):
    fit_retrieval.ensure(data)
    before = CheapRankers.load(data).fingerprint
    write_interactions(data, some_histories(25))
    fit_retrieval.ensure(data)

    assert CheapRankers.load(data).fingerprint != before


def test_an_interaction_with_an_item_outside_the_catalogue_is_named(data: str):
    write_interactions(data, {"u1": ["i1", "i2"], "u2": ["i3", "i99"], "u3": ["i99", "i4"]})

    with pytest.raises(ArtifactMismatch, match="'i99'"):
        fit_retrieval.run(data)


@pytest.mark.skipif(not MICROLENS.is_dir(), reason="the MicroLens files are not here")
def test_baselines_on_microlens_are_where_they_were_measured(tmp_path: Path):
    data = str(tmp_path)
    histories = _microlens_core()
    write_interactions(data, histories)
    write_items(
        data, dict.fromkeys(sorted({i for h in histories.values() for i in h}, key=int), "t")
    )
    fit_retrieval.run(data)
    rankers = CheapRankers.load(data)
    trials = load_trials(data, "chrono-uniform").trials
    rows = [rankers.score(trial.history, trial.candidates) for trial in trials]
    labels = np.zeros((len(rows), 21))
    labels[:, 0] = 1

    popularity = [[scores.popularity for scores in row] for row in rows]
    neighbors = [[scores.neighbors for scores in row] for row in rows]
    assert len(trials) == 1433
    assert auc(popularity, labels) == pytest.approx(0.66, abs=0.02)
    assert auc(neighbors, labels) == pytest.approx(0.72, abs=0.02)
    assert rank_targets(neighbors, labels).hr(5) > 0.5


def _microlens_core() -> dict[str, list[str]]:
    """The 7/5 core of the interaction file."""
    lines = (MICROLENS / "MicroLens-50k_pairs.tsv").read_text().splitlines()
    histories = {user: items.split() for user, items in (line.split("\t") for line in lines)}
    while True:
        counts: dict[str, int] = {}
        for history in histories.values():
            for item in history:
                counts[item] = counts.get(item, 0) + 1
        kept = {
            user: core
            for user, history in histories.items()
            if len(core := [item for item in history if counts[item] >= 5]) >= 7
        }
        if kept == histories:
            return kept
        histories = kept
