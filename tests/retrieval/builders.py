"""Cheap rankers over six items a..f, small enough to work out by hand."""

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from services.core.records import ItemId
from services.retrieval.artifact import RetrievalModel, with_vectors
from services.retrieval.cheap_rankers import CheapRankers
from services.retrieval.item_knn import Neighbors
from services.retrieval.recency import Recency
from services.retrieval.sasrec import SasRec, SasRecShape, Sequential
from services.retrieval.tfidf import Titles

ITEM_IDS = [ItemId(letter) for letter in "abcdef"]
TERMS = {"red": 0, "blue": 1, "cat": 2}


def some_titles() -> Titles:
    """a red, b blue, c red cat, d cat, e nothing, f red; every term is worth the same."""
    half = np.sqrt(0.5)
    rows = [[1, 0, 0], [0, 1, 0], [half, 0, half], [0, 0, 1], [0, 0, 0], [1, 0, 0]]
    return Titles(TERMS, np.ones(3), sp.csr_array(np.array(rows, np.float32)))


def some_neighbors() -> Neighbors:
    """a is like c (.6) and b (.1), b is like c (.3)."""
    return Neighbors(
        starts=np.array([0, 2, 3, 3, 3, 3, 3]),
        indices=np.array([2, 1, 2], np.int32),
        weights=np.array([0.6, 0.1, 0.3], np.float32),
    )


def a_network(num_items: int = 6, *, seed: int = 1) -> Sequential:
    """A network of random weights over random item vectors of length about 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SasRec(1, SasRecShape(dim=8, num_layers=1, num_heads=2, max_history=10))
    vectors = np.random.default_rng(seed).normal(0, 0.4, (num_items, 8)).astype(np.float32)
    return with_vectors(Sequential.of(network), vectors)


def some_fitted(**changed: Any) -> RetrievalModel:
    """a..f, taken by 9, 8, 3, 7, 3, 0 users; d is what trends. Nobody took f."""
    parts = {
        "item_ids": ITEM_IDS,
        "popularity": np.array([9, 8, 3, 7, 3, 0]),
        "trending": np.array([2.0, 1.0, 0.5, 6.0, 0.5, 0.0]),
        "cell_ends": np.array([6]),
        "neighbors": some_neighbors(),
        "titles": some_titles(),
        "sequential": a_network(),
        "rankers": {"recency": Recency(np.array([0.0, 0.25, 0.5, 1.0, 0.75, np.nan]))},
    }
    return RetrievalModel(**{**parts, **changed})


def some_rankers(**changed: Any) -> CheapRankers:
    """Cheap rankers of `some_fitted`."""
    return CheapRankers(some_fitted(**changed), fingerprint="print", definition="definition")
