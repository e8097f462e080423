"""The search in item vectors: exact where every item is scored, close to it in cells."""

import numpy as np
import pytest

from services.retrieval.vector_index import VectorIndex, assign_cells

DRAW = np.random.default_rng(3)
DIRECTIONS = DRAW.standard_normal((60, 32)).astype(np.float32)


def clustered(num_items: int) -> np.ndarray:
    """Vectors around 60 directions, as those of trained items are around topics."""
    noise = 0.4 * DRAW.standard_normal((num_items, 32)).astype(np.float32)
    return (DIRECTIONS[DRAW.integers(60, size=num_items)] + noise) / np.float32(6)


def in_cells(vectors: np.ndarray, num_cells: int, num_scanned: int) -> VectorIndex:
    """Cells by the nearest direction, so that the test does not rest on the clustering."""
    cells = np.argmax(vectors @ DIRECTIONS[:num_cells].T, axis=1)
    ends = np.cumsum(np.bincount(cells, minlength=num_cells))
    return VectorIndex(vectors[np.argsort(cells, kind="stable")], ends, num_scanned)


def test_a_small_catalogue_is_searched_exactly():
    vectors = clustered(500)
    scan = VectorIndex(vectors, np.array([500])).scan(vectors[7])

    assert scan.best(3).tolist() == np.argsort(-(vectors @ vectors[7]))[:3].tolist()
    assert np.exp(scan.scores - scan.log_normalizer).sum() == pytest.approx(1, abs=1e-4)


def test_a_search_in_cells_finds_nearly_all_of_the_best():
    found = in_cells(clustered(20_000), num_cells=60, num_scanned=4_000)
    user = 3 * DIRECTIONS[5]

    scores = found.vectors @ user
    scan = found.scan(user)

    assert 4_000 <= len(scan.items) < 6_000
    assert np.isin(np.argsort(-scores)[:100], scan.best(100)).mean() > 0.9


def test_the_normalizer_of_a_search_in_cells_is_close_to_the_exact_one():
    found = in_cells(clustered(20_000), num_cells=60, num_scanned=4_000)
    user = DIRECTIONS[9] / 2

    exact = float(np.logaddexp.reduce((found.vectors @ user).astype(float)))

    assert found.scan(user).log_normalizer == pytest.approx(exact, abs=0.05)


def test_scanned_items_stand_beside_their_scores():
    found = in_cells(clustered(2_000), num_cells=60, num_scanned=300)
    user = DIRECTIONS[1]

    scan = found.scan(user)

    assert (np.diff(scan.items) > 0).all()
    assert scan.scores == pytest.approx(found.vectors[scan.items] @ user, abs=1e-4)


def test_a_catalogue_that_can_be_scored_whole_is_one_cell():
    assert assign_cells(clustered(300)).tolist() == [0] * 300


def test_items_of_one_direction_share_a_cell():
    vectors = np.repeat(np.eye(4, dtype=np.float32), 1_000, axis=0)

    cells = assign_cells(vectors, exact_items=1_000)

    assert len(set(cells.tolist())) > 1
    assert all(len(set(cells[start : start + 1_000])) == 1 for start in range(0, 4_000, 1_000))
    assert cells.tolist() == assign_cells(vectors, exact_items=1_000).tolist()
