"""The retrieval stage over a synthetic catalogue of a given size: latency, memory, time to load,
and what the approximate index misses.

Everything a request needs takes part: SASRec's network and search, item-kNN, titles, trending, the
features of everything proposed and a fusion that orders them. Only what the artifact holds is made
up: item vectors lie around directions drawn at random, as trained ones do around topics; a user's
vector is what the (random) network makes of a history.
"""

import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
import torch

from benchmarks.support.msr_process import resident_bytes
from services.core.artifacts import Recipe
from services.core.records import ItemId
from services.retrieval.artifact import RetrievalModel, with_vectors, write
from services.retrieval.cheap_rankers import ARTIFACT, CheapRankers
from services.retrieval.features import FEATURES
from services.retrieval.item_knn import Neighbors
from services.retrieval.recency import Recency
from services.retrieval.sasrec import SasRec, SasRecShape, Sequential
from services.retrieval.tfidf import Titles
from services.retrieval.vector_index import VectorIndex, assign_cells

NUM_NEIGHBORS = 50  # MicroLens-50k has 40 an item after its k-core; popular items have hundreds
TERMS_PER_TITLE = 8
ITEMS_PER_DIRECTION = 200
SPREAD = 0.6  # of a vector around its direction
HISTORY_LENGTH = 30
NUM_RETRIEVED = 200
NUM_REQUESTS = 200
NUM_COMPARED = 20


def measure_retrieval(num_items: int) -> dict[str, Any]:
    """Write an artifact of `num_items`, load it and retrieve for many histories.

    Meant for a process of its own: what it holds after loading, over before, is the rankers'.
    `recall` is the share of the 200 highest inner products that a search finds, `normalizer_error`
    the largest error of the log normalizer.
    """
    with tempfile.TemporaryDirectory() as data:
        write_synthetic(data, NUM_NEIGHBORS)
        CheapRankers.load(data)  # what reading needs at all is not the size's
        write_synthetic(data, num_items)
        before = _held_bytes()
        started = time.perf_counter()
        rankers = CheapRankers.load(data)
        load_seconds = time.perf_counter() - started
        held = _held_bytes() - before
    draw = Random(num_items)
    weights = np.linspace(1.0, 0.5, len(FEATURES), dtype=np.float32)

    def retrieve() -> None:
        history = [rankers.item_ids[draw.randrange(num_items)] for _ in range(HISTORY_LENGTH)]
        rankers.retrieve(
            history, limit=NUM_RETRIEVED, exclude=history, order=lambda values: values @ weights
        )

    return {
        "size": num_items,
        **time_calls(retrieve, NUM_REQUESTS),
        "bytes": held,
        "bytes_each": round(held / num_items),
        "load_seconds": round(load_seconds, 2),
        **_compare(rankers.vectors),
    }


def write_synthetic(data: str, num_items: int) -> None:
    """An artifact `retrieval` of random neighbors, titles and vectors, with a popularity that has
    a long tail.
    """
    draw = np.random.default_rng(num_items)
    shape = SasRecShape()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(num_items)
        network = SasRec(1, shape).eval()
    directions = draw.standard_normal(
        (max(1, num_items // ITEMS_PER_DIRECTION), shape.dim), dtype=np.float32
    )
    vectors = directions[draw.integers(len(directions), size=num_items)]
    vectors += SPREAD * draw.standard_normal((num_items, shape.dim), dtype=np.float32)
    vectors /= np.float32(shape.dim**0.5)
    popularity = draw.zipf(1.5, num_items).clip(max=10**6)
    num_terms = max(TERMS_PER_TITLE, num_items // 10)
    fitted = RetrievalModel(
        item_ids=[ItemId(f"item-{number:07d}") for number in range(num_items)],
        popularity=popularity,
        trending=popularity * draw.random(num_items),
        cell_ends=np.array([num_items]),
        neighbors=Neighbors(*_random_rows(draw, num_items, NUM_NEIGHBORS, num_items)),
        titles=_random_titles(draw, num_items, num_terms),
        sequential=with_vectors(Sequential.of(network), vectors),
        rankers={},
    )
    eras = draw.random(num_items)
    cells = assign_cells(vectors)
    fitted = fitted.reordered(np.argsort(cells, kind="stable"), np.cumsum(np.bincount(cells)))
    fitted = replace(fitted, rankers={Recency.name: Recency(eras)})
    definition = {"num_items": num_items, "sequential": {"shape": fitted.sequential.settings}}
    write(data, ARTIFACT, Recipe("synthetic", definition), fitted, {})


def time_calls(call: Callable[[], None], num_calls: int) -> dict[str, float]:
    """Median and 95th percentile of the milliseconds of one call, after a tenth untimed."""
    for _ in range(num_calls // 10):
        call()
    seconds = []
    for _ in range(num_calls):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return percentiles(seconds)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds."""
    median, high = np.percentile(seconds, (50, 95)) * 1000
    return {"median_ms": round(float(median), 3), "p95_ms": round(float(high), 3)}


def _compare(index: VectorIndex) -> dict[str, float]:
    """What searches find and estimate, against scoring everything. Users point where some item
    lies, as those do whose next item is in the catalogue.
    """
    draw = np.random.default_rng(len(index.vectors))
    num = min(NUM_RETRIEVED, len(index.vectors))
    found, errors = [], []
    for item in draw.integers(len(index.vectors), size=NUM_COMPARED):
        noise = draw.standard_normal(index.vectors.shape[1], dtype=np.float32)
        user = 3 * index.vectors[item] + 0.3 * noise
        scores = index.vectors @ user
        best = np.argpartition(-scores, num - 1)[:num]
        scan = index.scan(user)
        found.append(float(np.isin(best, scan.best(num)).mean()))
        errors.append(abs(scan.log_normalizer - float(np.logaddexp.reduce(scores.astype(float)))))
    return {"recall": round(float(np.mean(found)), 4), "normalizer_error": round(max(errors), 4)}


def _held_bytes() -> int:
    """Memory in use, without what Arrow keeps for its next allocation."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    return resident_bytes()


def _random_rows(
    draw: np.random.Generator, num_rows: int, row_length: int, num_columns: int
) -> tuple[Any, Any, Any]:
    """Starts, columns and weights of compressed rows, all of one length."""
    size = num_rows * row_length
    starts = np.arange(0, size + 1, row_length, dtype=np.int64)
    columns = draw.integers(num_columns, size=size, dtype=np.int32)
    return starts, columns, draw.random(size, dtype=np.float32)


def _random_titles(draw: np.random.Generator, num_items: int, num_terms: int) -> Titles:
    starts, _, weights = _random_rows(draw, num_items, TERMS_PER_TITLE, num_terms)
    # As in real titles: a few terms are in many of them, most in few.
    columns = (num_terms * draw.random(len(weights)) ** 3).astype(np.int32)
    weights /= np.float32(TERMS_PER_TITLE**0.5)
    rows = sp.csr_array((weights, columns, starts), (num_items, num_terms))
    names = {f"term-{number}": number for number in range(num_terms)}
    return Titles(names, np.ones(num_terms), rows)
