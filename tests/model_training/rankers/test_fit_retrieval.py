"""Fitting the cheap rankers: what they may see, and that they are right and repeatable."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from model_training.data.inputs import open_inputs
from model_training.data.visible_items import visible_histories
from model_training.rankers import fit_retrieval
from model_training.rankers.fit_retrieval import ARTIFACTS
from model_training.scoring.metrics import auc, rank_targets
from services.batch import prepare_catalogue
from services.batch.readers.microlens import MicroLens
from services.core.artifacts import Artifact
from services.core.errors import ArtifactMismatch, EmptyDataset, InputError
from services.core.splits import split_users
from services.retrieval import artifact as fitted
from services.retrieval.artifact import RetrievalModel
from services.retrieval.cheap_rankers import CheapRankers
from services.retrieval.features import FEATURES
from services.retrieval.popularity import count_popularity, count_trending
from services.retrieval.recency import Recency
from tests.artifact_builders import write_interactions, write_items
from tests.model_training.builders import frozen_tasks, some_histories
from tests.retrieval.builders import a_network

MICROLENS = Path(
    os.environ.get(
        "MSR_MICROLENS", Path(__file__).parents[3].parent / "shared" / "data" / "microlens"
    )
)


def written(folder: Path, histories: Mapping[str, Sequence[str]], **titles: str) -> str:
    """A data folder with these histories over the items i0 to i39, and those with a title."""
    plain = {f"i{number}": f"a thing of kind {number}" for number in range(40)}
    write_items(str(folder), plain | titles)
    write_interactions(str(folder), histories)
    return str(folder)


def fit(data: str, **options: object) -> RetrievalModel:
    fit_retrieval.run(data, **{"epochs": 1, **options})
    return fitted.read(data, ARTIFACTS[options.get("cut", "last")])


def files(data: str) -> dict[str, bytes]:
    found = sorted(Path(data).glob("retrieval*/**/*"))
    return {str(file.relative_to(data)): file.read_bytes() for file in found if file.is_file()}


def users_of(part: str) -> list[str]:
    return [user for user, found in split_users(list(some_histories())).items() if found == part]


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

    found = fit_retrieval.fit_neighbors(histories, 5, num_neighbors=10)

    rows = [found.score_history([item]).of(np.arange(5)) for item in range(5)]
    assert np.array(rows) == pytest.approx(dense(histories, 5), abs=1e-6)


def test_only_the_most_alike_neighbors_are_kept_best_first():
    histories = [[0, 1, 2], [0, 1], [0, 1], [0, 3], [3]]

    found = fit_retrieval.fit_neighbors(histories, 4, num_neighbors=2)

    assert found.indices[: found.starts[1]].tolist() == [1, 2]


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_held_out_target_leaves_no_trace(tmp_path: Path, part: str):
    histories = some_histories()
    histories[users_of(part)[0]][-1] = "target"

    found = fit(written(tmp_path, histories, target="a thing of its own"))

    item = found.item_ids.index("target")
    assert found.popularity[item] == found.trending[item] == 0
    assert not found.was_taken[item]
    assert item not in found.neighbors.indices.tolist()


def test_with_nothing_hidden_the_last_items_are_seen(tmp_path: Path):
    histories = some_histories()
    histories[users_of("test")[0]][-1] = "target"

    found = fit(written(tmp_path, histories, target="a thing"), cut="none")

    assert found.popularity[found.item_ids.index("target")] == 1


def test_users_of_whom_something_is_hidden_do_not_count_for_popularity(data: str):
    found = fit(data)

    training = [some_histories()[user] for user in users_of("train")]
    takers = sum("i9" in history for history in training)
    assert found.popularity[found.item_ids.index("i9")] == takers > 0


def test_an_item_that_nobody_took_stands_among_its_content_neighbors(tmp_path: Path):
    # Only i7 shares a word with it, so it stands where i7 stands.
    found = fit(written(tmp_path, some_histories(), lonely="something like 7, ±", odd="unheard"))

    vectors = found.sequential.item_vectors
    lonely, odd = found.item_ids.index("lonely"), found.item_ids.index("odd")
    was_taken = found.was_taken
    assert not was_taken[[lonely, odd]].any()
    assert vectors[odd] == pytest.approx(vectors[was_taken].mean(0), abs=1e-6)


def test_the_same_data_give_the_same_bytes_without_a_warning(tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for folder in ("one", "two"):
            fit_retrieval.run(written(tmp_path / folder, some_histories()), epochs=2)

    assert files(str(tmp_path / "one")) == files(str(tmp_path / "two"))


@pytest.mark.slow
def test_a_killed_fit_ends_with_the_bytes_of_an_undisturbed_one(tmp_path: Path):
    killed, whole = (written(tmp_path / name, some_histories()) for name in ("killed", "whole"))
    options = {"cut": "none", "epochs": 20}
    program = (
        f"from model_training.rankers import fit_retrieval as f; f.run({killed!r}, **{options})"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(Path(killed).glob("*/*.checkpoint")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)

    assert process.wait() == -signal.SIGKILL
    assert not Artifact(killed, "retrieval-whole").exists()
    for data in (killed, whole):
        fit_retrieval.run(data, **options)
    assert files(killed) == files(whole)


@pytest.mark.slow
def test_fits_started_at_once_take_turns_and_the_first_works_for_all(tmp_path: Path):
    together, alone = (written(tmp_path / name, some_histories()) for name in ("together", "alone"))
    options = {"epochs": 20}
    # Each waits for a line on stdin once its imports are done, so that all fit at the same time.
    program = (
        "from model_training.rankers import fit_retrieval as f; "
        "print('ready', flush=True); input(); "
        f"f.run({together!r}, **{options})"
    )
    fits = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in fits:
        assert process.stdout.readline() == "ready\n"
    for process in fits:
        process.stdin.write("\n")
        process.stdin.flush()
    said = ["\n".join(process.communicate()) for process in fits]

    assert [process.returncode for process in fits] == [0, 0, 0], "\n".join(said)
    assert "".join(said).count("sasrec_trained") == 1
    fit_retrieval.run(alone, **options)
    assert files(together) == files(alone)


def test_without_validation_users_it_says_so_and_fits(tmp_path: Path):
    counts = fit_retrieval.run(written(tmp_path, {"u1": ["i1", "i2", "i3"]}), epochs=2)

    assert (counts["validation_users"], counts["users"]) == (0, 1)
    assert CheapRankers.load(str(tmp_path)).retrieve(["i1"], limit=3, exclude=["i1"])


def test_rankers_are_fitted_again_for_new_interactions_only(data: str):
    fit_retrieval.run(data, epochs=1)
    before = CheapRankers.load(data).fingerprint
    fit_retrieval.ensure(data)
    assert CheapRankers.load(data).fingerprint == before

    write_interactions(data, some_histories(25))
    fit_retrieval.ensure(data)
    assert CheapRankers.load(data).fingerprint != before


def test_an_interaction_with_an_item_outside_the_catalogue_is_named(data: str):
    write_interactions(data, {"u1": ["i1", "i2"], "u2": ["i3", "i99"], "u3": ["i99", "i4"]})

    with pytest.raises(ArtifactMismatch, match="'i99'"):
        fit_retrieval.run(data)


def test_users_without_a_single_visible_interaction_are_refused(tmp_path: Path):
    with pytest.raises(EmptyDataset, match="no interaction to fit"):
        fit_retrieval.run(written(tmp_path, {"u1": []}))


@pytest.mark.parametrize("options", [{"epochs": 0}, {"num_neighbors": 0}])
def test_impossible_arguments_are_refused(data: str, options: dict[str, int]):
    with pytest.raises(InputError, match="at least 1"):
        fit_retrieval.run(data, **options)


@pytest.mark.slow
@pytest.mark.skipif(not MICROLENS.is_dir(), reason="the MicroLens files are not here")
def test_baselines_on_microlens_are_where_they_were_measured(tmp_path: Path):
    prepare_catalogue.run(MicroLens(MICROLENS), data=str(tmp_path))
    tasks = frozen_tasks(str(tmp_path), "chrono-uniform").tasks
    rankers = untrained_rankers(str(tmp_path))
    features = np.stack([rankers.features(task.history, task.candidates) for task in tasks])
    labels = np.eye(1, 21).repeat(len(tasks), axis=0)

    scores = dict(zip(FEATURES, np.moveaxis(features, 2, 0), strict=True))
    assert len(tasks) == 1433
    for name, expected in {"popularity": 0.66, "neighbors": 0.72, "titles": 0.67}.items():
        assert auc(scores[name], labels) == pytest.approx(expected, abs=0.02)
    assert auc(scores["trending"], labels) == pytest.approx(0.81, abs=0.01)
    assert rank_targets(scores["neighbors"], labels).hr(5) > 0.5


def untrained_rankers(data: str) -> CheapRankers:
    """Every ranker but SASRec fitted under the cut `last`; SASRec takes minutes."""
    table = Artifact(data, "items").read(["item_id", "title"])
    index = {item_id: k for k, item_id in enumerate(table["item_id"].to_pylist())}
    by_user = open_inputs(data).histories
    visible = visible_histories(by_user, "last")
    rows = {user: [index[item] for item in history] for user, history in visible.items()}
    counted = [row for user, row in rows.items() if len(row) == len(by_user[user])]
    found = RetrievalModel(
        item_ids=list(index),
        popularity=count_popularity(counted, len(index)),
        trending=count_trending(counted, len(index), None),
        cell_ends=np.array([len(index)]),
        neighbors=fit_retrieval.fit_neighbors(
            list(rows.values()), len(index), num_neighbors=fit_retrieval.DEFAULT_NUM_NEIGHBORS
        ),
        titles=fit_retrieval.fit_titles(table["title"].to_pylist()),
        sequential=a_network(len(index)),
        rankers={"recency": Recency(np.zeros(len(index)))},
    )
    return CheapRankers(found, fingerprint="", definition="")


@pytest.mark.parametrize("lost", ["retrieval-network", "retrieval-terms/manifest.json"])
def test_a_lost_table_is_made_again(tmp_path: Path, lost: str):
    data = written(tmp_path, some_histories())
    fit(data)
    before = files(data)
    gone = tmp_path / lost
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    fit(data)

    assert files(data) == before
