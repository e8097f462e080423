"""The items that a user's vector points at: a search in the item vectors, exact or in cells.

Up to EXACT_ITEMS items every one is scored (200,000 of 128 dimensions: 3 ms on one core). A larger
catalogue is laid out in cells of similar vectors; of those whose mean the user's vector points at
most, as many are scored as hold NUM_SCANNED items. The log of the sum of exp over all items, which
makes scores log-probabilities, is then estimated: exact over what was scanned, and over the rest
from a fixed sample. `msr bench scale` measures how much either misses.

Smaller cells find more for the same work. Of the 200 best for test users of MicroLens-50k (9,535
trained vectors), scanning 1,000 items found 66 % in cells of 1,000, 81 % of 250 and 87 % of 100;
the log normalizer was off by 0.010, 0.006 and 0.004 on average. Cells of 250 are what k-means makes
of a million items in half a minute.

The layout is the item order itself, so that vectors lie in memory once. Two things were measured
and left: faiss' IVF (the same recall, but it keeps vectors of its own and brings a second OpenMP
into the process), and BLAS for the products (on a busy machine of two cores its threads wait 8 ms
for each other; `vecdot` takes 1.5 ms for 100,000 x 128, and a row's value is that of any batch).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.retrieval.sparse_scores import ranges, top

Vectors = NDArray[np.float32]

EXACT_ITEMS = 200_000
# Of a million items on one core, most of the time goes into reading this many vectors from memory:
# 65,536 found 99.7 % of the 200 best in 13 ms for the whole retrieval, 40,960 99.6 % in 10 ms, and
# half of 65,536 95.4 %.
NUM_SCANNED = 40_960
ITEMS_PER_CELL = 250
# k-means learns the cells from this many items a cell, in this many rounds.
SAMPLED_PER_CELL = 32
NUM_ROUNDS = 6
SAMPLE_SIZE = 8_192
SAMPLE_SEED = 2025


@dataclass(frozen=True)
class Scan:
    """What one search looked at: item indices in ascending order, and their scores beside them.

    `log_normalizer` is the log of the sum of exp(score) over all items of the catalogue.
    """

    items: NDArray[np.int64]
    scores: Vectors
    log_normalizer: float

    def best(self, num: int) -> NDArray[np.int64]:
        """The `num` highest scored items, best first; of equals the lower index."""
        return self.items[top(self.scores, num)]


@dataclass(frozen=True)
class VectorIndex:
    """Item vectors (num_items, D), cell after cell; `cell_ends` (num_cells,) is where each ends."""

    vectors: Vectors
    cell_ends: NDArray[np.int64]
    num_scanned: int = NUM_SCANNED
    _means: Vectors = field(init=False, repr=False)
    _cell_of_sample: NDArray[np.int64] = field(init=False, repr=False)
    _sampled_vectors: Vectors = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Derives the means of the cells, and the sample for what is not scanned."""
        num_items = len(self.vectors)
        ranges = zip([0, *self.cell_ends[:-1]], self.cell_ends, strict=True)
        means = [self.vectors[start:end].mean(0) for start, end in ranges]
        draw = np.random.default_rng(SAMPLE_SEED)
        size = 0 if self.is_exact else min(SAMPLE_SIZE, num_items)
        sample = np.sort(draw.choice(num_items, size, replace=False))
        cell_of_sample = np.searchsorted(self.cell_ends, sample, side="right")
        object.__setattr__(self, "_means", np.stack(means))
        object.__setattr__(self, "_cell_of_sample", cell_of_sample)
        object.__setattr__(self, "_sampled_vectors", self.vectors[sample])

    @property
    def is_exact(self) -> bool:
        """Whether every item is scored."""
        return len(self.cell_ends) == 1

    def scan(self, user: Vectors) -> Scan:
        """Score the items that may be the best for a user's vector (D,)."""
        if self.is_exact:
            scores = np.vecdot(self.vectors, user)
            items = np.arange(len(self.vectors))
            return Scan(items, scores, _log_sum_exp(scores))
        cells = self._choose_cells(user)
        starts = np.concatenate([[0], self.cell_ends])[cells]
        ends = self.cell_ends[cells]
        parts = zip(starts.tolist(), ends.tolist(), strict=True)
        scores = np.concatenate([np.vecdot(self.vectors[start:end], user) for start, end in parts])
        return Scan(
            ranges(starts, ends - starts), scores, self._estimate_normalizer(user, scores, cells)
        )

    def _choose_cells(self, user: Vectors) -> NDArray[np.int64]:
        """Cells to scan, ascending, so that items come in the order of their index."""
        order = np.argsort(-np.vecdot(self._means, user), kind="stable")
        sizes = np.diff(self.cell_ends, prepend=0)[order]
        num_chosen = int(np.searchsorted(np.cumsum(sizes), self.num_scanned)) + 1
        return np.sort(order[:num_chosen])

    def _estimate_normalizer(
        self, user: Vectors, scores: Vectors, cells: NDArray[np.int64]
    ) -> float:
        is_scanned = np.zeros(len(self.cell_ends), bool)
        is_scanned[cells] = True
        rest = np.vecdot(self._sampled_vectors, user)[~is_scanned[self._cell_of_sample]]
        scanned = _log_sum_exp(scores)
        if not len(rest):
            return scanned
        share = (len(self.vectors) - len(scores)) / len(rest)
        return float(np.logaddexp(scanned, _log_sum_exp(rest) + np.log(share)))


def assign_cells(
    vectors: Vectors, *, exact_items: int = EXACT_ITEMS, seed: int = SAMPLE_SEED
) -> NDArray[np.int64]:
    """The cell of every item: (num_items,), numbered from 0 without gaps; one cell up to
    `exact_items` items.

    Spherical k-means on a sample: items of one direction share a cell, because what a user's vector
    points at is a matter of direction. The same vectors give the same cells.
    """
    num_items = len(vectors)
    if num_items <= exact_items:
        return np.zeros(num_items, np.int64)
    draw = np.random.default_rng(seed)
    num_cells = num_items // ITEMS_PER_CELL
    sampled = vectors[
        np.sort(draw.choice(num_items, min(num_items, SAMPLED_PER_CELL * num_cells), False))
    ]
    sampled = sampled / np.maximum(np.linalg.norm(sampled, axis=1, keepdims=True), 1e-12)
    centers = sampled[draw.choice(len(sampled), num_cells, replace=False)]
    for _ in range(NUM_ROUNDS):
        nearest = _nearest(sampled, centers)
        order = np.argsort(nearest, kind="stable")
        used, starts = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(sampled[order], starts, axis=0)
        centers[used] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return np.unique(_nearest(vectors, centers), return_inverse=True)[1].astype(np.int64)


def _nearest(vectors: Vectors, centers: Vectors) -> NDArray[np.int64]:
    def parts() -> Iterable[NDArray[np.int64]]:
        for start in range(0, len(vectors), 8192):
            yield np.argmax(vectors[start : start + 8192] @ centers.T, axis=1)

    return np.concatenate(list(parts()))


def _log_sum_exp(scores: Vectors) -> float:
    highest = float(scores.max())
    return highest + float(np.log(np.exp(scores - highest).sum(dtype=np.float64)))
