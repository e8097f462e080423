"""Step 4, `msr fit-retrieval`: the cheap rankers of the service.

Reads `items` and `interactions`; writes `retrieval` (see `services/retrieval/artifact.py`):
popularity and trending counts, item-kNN, TF-IDF of the titles, SASRec, the items' eras.

What they are fitted on follows from the cut. `last` and `popular` hide the target items of
validation and test users and what came after them, so an evaluation may compare the rankers with
the model; `none` hides nothing, for serving alone. Popularity and trending count the users of whom
nothing is hidden (`popularity.py` says why).

The same data give the same bytes on the same machine with as many threads; others round SASRec's
sums otherwise. SASRec takes minutes and resumes after a kill; the rest takes seconds and is done
again. Processes that fit the same cut in one local folder take turns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import fsspec
import numpy as np
import scipy.sparse as sp
import structlog
from fsspec.implementations.local import LocalFileSystem
from implicit.nearest_neighbours import ItemItemRecommender
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from tqdm import tqdm

from model_training.data.inputs import Inputs, open_inputs
from model_training.data.item_eras import item_eras
from model_training.data.visible_items import visible_histories
from model_training.rankers import fit_sasrec
from model_training.rankers.fit_sasrec import SasRecConfig, title_features
from services.core.artifacts import Artifact, Recipe
from services.core.errors import EmptyDataset, HistoryTooShort, InputError
from services.core.records import ItemId
from services.core.splits import SPLIT_SEED, Cut
from services.retrieval import item_knn, popularity, tfidf
from services.retrieval.artifact import (
    ITEMS_PER_SHARD,
    RetrievalModel,
    is_whole,
    main_recipe,
    with_vectors,
    write,
)
from services.retrieval.item_knn import Neighbors
from services.retrieval.ranker import TrainingData
from services.retrieval.rankers import RANKERS, optional_rankers
from services.retrieval.sasrec import Sequential
from services.retrieval.tfidf import TOKEN, Titles
from services.retrieval.vector_index import EXACT_ITEMS, ITEMS_PER_CELL, assign_cells

log = structlog.get_logger(__name__)

ARTIFACTS: Mapping[Cut, str] = {
    "last": "retrieval",
    "popular": "retrieval-popular",
    "none": "retrieval-whole",
}
# On MicroLens-50k 200 neighbors cost 0.03 AUC against 1,000; most items have fewer than 1,000.
DEFAULT_NUM_NEIGHBORS = 1000
RULES = 2  # raise it when this step decides something differently, so that artifacts are remade


def run(
    data: str,
    *,
    cut: Cut = "last",
    num_neighbors: int = DEFAULT_NUM_NEIGHBORS,
    epochs: int | None = None,
) -> dict[str, int]:
    """Write the artifact of a cut; the counts of users, items, interactions, neighbors, terms of
    titles, and validation users.

    `epochs` bounds SASRec's training (fit_sequential's default otherwise). Without validation
    users, as under the cut `none`, it trains for all of them. Raises InputError for impossible
    arguments, EmptyDataset if nothing was taken, ArtifactMismatch if the catalogue lacks a taken
    item.
    """
    if num_neighbors < 1 or (epochs is not None and epochs < 1):
        raise InputError("num_neighbors and epochs must be at least 1; raise them")
    config = SasRecConfig() if epochs is None else SasRecConfig(num_epochs=epochs)
    inputs = open_inputs(data)
    name = ARTIFACTS[cut]
    recipe = Recipe(
        step="fit-retrieval",
        definition={
            "rules": RULES,
            "cut": cut,
            "split_seed": SPLIT_SEED,
            "half_lives": [popularity.HALF_LIFE_INTERACTIONS, popularity.HALF_LIFE_SHARE_OF_SPAN],
            "num_neighbors": num_neighbors,
            "recency_decay": item_knn.RECENCY_DECAY,
            "content_neighbors": tfidf.NUM_CONTENT_NEIGHBORS,
            "sequential": config.as_dict(),
            "cells": [EXACT_ITEMS, ITEMS_PER_CELL],
            "items_per_shard": ITEMS_PER_SHARD,
            **({"rankers": optional_rankers()} if optional_rankers() else {}),
        },
        inputs=inputs.fingerprints,
    )
    artifact = Artifact(data, name)
    # Opened first, so that a folder that cannot be written to fails before hours of fitting.
    writer = artifact.write(main_recipe(name, recipe))
    # Two servers that start on one folder both come here: the second takes what the first made.
    with artifact.locked(lambda: log.info("waiting_for_another_fit", artifact=artifact.location)):
        if not (writer.finished and is_whole(data, name)):
            _make(data, name, recipe, _read_seen(inputs, cut), config)
    return artifact.manifest().counts


def ensure(data: str, cut: Cut = "last") -> None:
    """Fit if there is no artifact of the cut for the items and interactions in the data folder.

    One that was fitted with other options than the defaults is kept.
    """
    artifact = Artifact(data, ARTIFACTS[cut])
    if is_whole(data, artifact.name):
        manifest = artifact.manifest()
        current = {
            name: Artifact(data, name).manifest().fingerprint for name in ("items", "interactions")
        }
        is_current = manifest.inputs.items() >= current.items()
        made_by = (manifest.definition.get("rules"), manifest.definition.get("rankers", []))
        if is_current and made_by == (RULES, optional_rankers()):
            return
    run(data, cut=cut)


# --- what may be seen ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seen:
    """Interactions that a cut leaves to learn from, as item indices, oldest first.

    `visible` has a row a user, and `timestamps_ms` beside it (None: an order alone); `is_whole`
    marks the users of whom nothing is hidden. `validation` holds (history, target).
    """

    item_ids: list[ItemId]
    item_titles: list[str]
    visible: list[list[int]]
    timestamps_ms: list[list[int]] | None
    is_whole: list[bool]
    validation: list[tuple[list[int], int]]


def _read_seen(inputs: Inputs, cut: Cut) -> _Seen:
    whole = {user_id: inputs.indices(history) for user_id, history in inputs.histories.items()}
    visible = {
        user_id: whole[user_id][: len(history)]
        for user_id, history in visible_histories(inputs.histories, cut).items()
    }
    if not any(visible.values()):
        raise EmptyDataset(
            f"{inputs.data} has no interaction to fit the cheap rankers on; prepare more users"
        )
    times = inputs.timestamps_ms
    visible_times = None
    if times is not None:
        visible_times = [times[user_id][: len(row)] for user_id, row in visible.items()]
    validation = []
    if cut != "none":
        for user_id in (user for user, split in inputs.split.items() if split == "validation"):
            try:
                history, _ = inputs.hold_out(user_id, cut)
            except HistoryTooShort:
                continue
            if history:
                indices = whole[user_id]
                validation.append((indices[: len(history)], indices[len(history)]))
    if not validation:
        log.warning("no_validation_users", cut=cut, consequence="SASRec trains for all its epochs")
    return _Seen(
        item_ids=inputs.item_ids,
        item_titles=Artifact(inputs.data, "items").read(["title"])["title"].to_pylist(),
        visible=list(visible.values()),
        timestamps_ms=visible_times,
        is_whole=[len(history) == len(whole[user_id]) for user_id, history in visible.items()],
        validation=validation,
    )


# --- fitting -------------------------------------------------------------------------------------


def _make(data: str, name: str, recipe: Recipe, seen: _Seen, config: SasRecConfig) -> None:
    checkpoint = _checkpoint(data, name, recipe)
    fitted = _fit(seen, recipe.definition["num_neighbors"], config, checkpoint)
    counts = {
        "users": sum(1 for history in seen.visible if history),
        "interactions": sum(map(len, seen.visible)),
        "validation_users": len(seen.validation),
    }
    write(data, name, recipe, fitted, counts)
    if checkpoint is not None:
        for finished in checkpoint.parent.glob(f"*{checkpoint.suffix}"):
            finished.unlink()


def _fit(
    seen: _Seen, num_neighbors: int, config: SasRecConfig, checkpoint: Path | None
) -> RetrievalModel:
    num_items = len(seen.item_ids)
    chosen = [number for number, is_whole in enumerate(seen.is_whole) if is_whole]
    counted = [seen.visible[number] for number in chosen]
    times = seen.timestamps_ms
    if times is not None:
        times = [times[number] for number in chosen]
    found_titles = fit_titles(seen.item_titles)
    log.info("rankers_fitting", items=num_items, validation_users=len(seen.validation))
    sequential = fit_sasrec.fit(
        [history for history in seen.visible if history],
        num_items,
        seen.validation,
        checkpoint,
        config=config,
        item_features=title_features(found_titles.rows),
    )
    fitted = RetrievalModel(
        item_ids=seen.item_ids,
        popularity=popularity.count_popularity(counted, num_items),
        trending=popularity.count_trending(counted, num_items, times),
        cell_ends=np.array([num_items]),
        neighbors=fit_neighbors(seen.visible, num_items, num_neighbors=num_neighbors),
        titles=found_titles,
        sequential=sequential,
        rankers={},
    )
    eras = item_eras(seen.visible, num_items, seen.timestamps_ms)
    fitted = replace(fitted, sequential=place_untaken(fitted, ~np.isnan(eras)))
    cells = assign_cells(fitted.sequential.item_vectors)
    order = np.argsort(cells, kind="stable")
    if cells.max() > 0:
        fitted = fitted.reordered(order, np.cumsum(np.bincount(cells)))
    place = np.empty_like(order)
    place[order] = np.arange(num_items)
    training = TrainingData(
        titles=[seen.item_titles[item] for item in order.tolist()],
        histories=[place[np.asarray(history, np.int64)].tolist() for history in seen.visible],
        timestamps_ms=seen.timestamps_ms,
        eras=eras[order],
    )
    return replace(fitted, rankers={each.name: each.fit(training) for each in RANKERS})


def fit_neighbors(
    histories: Sequence[Sequence[int]], num_items: int, *, num_neighbors: int
) -> Neighbors:
    """Cosine between items' sets of takers, the `num_neighbors` highest of each row, an item's own
    left out; neighbors in a row most alike first, of equals the lower index.
    """
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    columns = np.concatenate([np.asarray(history, np.int64) for history in histories])
    taken = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), (len(histories), num_items))
    taken.data[:] = 1.0  # a user who took an item twice counts once
    num_takers = np.asarray(taken.sum(axis=0)).ravel()
    scaled = (taken @ sp.diags(1.0 / np.sqrt(np.maximum(num_takers, 1)))).tocsr()
    # One more than wanted: an item is its own nearest neighbor.
    model = ItemItemRecommender(K=min(num_neighbors + 1, num_items), num_threads=1)
    model.fit(scaled, show_progress=False)
    entries = model.similarity.tocoo()
    kept = (entries.row != entries.col) & (entries.data > 0)
    rows, columns, weights = entries.row[kept], entries.col[kept], entries.data[kept]
    order = np.lexsort((columns, -weights, rows))
    return Neighbors(
        starts=np.searchsorted(rows[order], np.arange(num_items + 1)).astype(np.int64),
        indices=columns[order].astype(np.int32),
        weights=weights[order].astype(np.float32),
    )


def fit_titles(item_titles: Sequence[str]) -> Titles:
    """TF-IDF of these titles; titles without a single word make rows without terms."""
    if not any(TOKEN.search(title.lower()) for title in item_titles):
        return Titles({}, np.empty(0), sp.csr_array((len(item_titles), 0), dtype=np.float32))
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=TOKEN.pattern)
    rows = sp.csr_array(vectorizer.fit_transform(item_titles)).astype(np.float32)
    rows.sort_indices()
    terms = {term: int(column) for term, column in vectorizer.vocabulary_.items()}
    return Titles(terms, np.asarray(vectorizer.idf_, np.float64), rows)


def place_untaken(fitted: RetrievalModel, was_taken: NDArray[np.bool_]) -> Sequential:
    """The network, with the mean vector of their content neighbors for items without interactions.

    Training used them as negatives alone, so their own vectors mean nothing. An item without
    content neighbors gets the mean of all vectors.
    """
    vectors: NDArray[np.float32] = fitted.sequential.item_vectors.copy()
    middle = vectors[was_taken].mean(0)
    untaken = np.flatnonzero(~was_taken).tolist()
    for item in tqdm(untaken, desc="items without interactions", unit="item", disable=None):
        placed = fitted.titles.content_vector(
            fitted.titles.row(item), was_taken, fitted.sequential.item_vectors
        )
        vectors[item] = middle if placed is None else placed
    return with_vectors(fitted.sequential, vectors)


def _checkpoint(data: str, name: str, recipe: Recipe) -> Path | None:
    """Where SASRec's training is kept; None if the data folder is no local one."""
    filesystem, folder = fsspec.core.url_to_fs(data)
    if not isinstance(filesystem, LocalFileSystem):
        log.warning("not_resumable", consequence="a killed fit starts SASRec over", data=data)
        return None
    return Path(folder) / f"{name}-network" / f"{recipe.fingerprint}.checkpoint"
