"""SASRec as it serves: what a history's vector depends on, and that nothing is lost on the way."""

import numpy as np
import pytest
import torch

from services.retrieval.sasrec import SasRec, SasRecShape, Sequential, pad_histories

SHAPE = SasRecShape(dim=16, num_layers=2, num_heads=2, max_history=4)


@pytest.fixture(scope="module")
def ranker() -> Sequential:
    torch.manual_seed(1)
    return Sequential.of(SasRec(10, SHAPE, dropout=0.5))


def test_a_history_has_the_same_vector_alone_and_beside_longer_ones(ranker):
    together = ranker.encode_many([[1, 2], [3, 4, 5, 6], [7]])

    np.testing.assert_allclose(together[0], ranker.encode([1, 2]), atol=1e-6)
    np.testing.assert_allclose(together[2], ranker.encode([7]), atol=1e-6)


def test_dropout_is_off(ranker):
    assert np.array_equal(ranker.encode([1, 2, 3]), ranker.encode([1, 2, 3]))


def test_the_order_of_a_history_matters(ranker):
    assert not np.allclose(ranker.encode([1, 2, 3]), ranker.encode([3, 2, 1]), atol=1e-3)


def test_only_the_latest_items_of_a_long_history_are_looked_at(ranker):
    assert np.array_equal(ranker.encode([9, 1, 2, 3, 4]), ranker.encode([8, 1, 2, 3, 4]))


def test_a_hidden_state_does_not_see_what_comes_after_it(ranker):
    rows, _ = pad_histories([[1, 2, 3], [1, 2, 9]], SHAPE.max_history)
    with torch.inference_mode():
        hidden = ranker.network(rows)

    torch.testing.assert_close(hidden[0, :2], hidden[1, :2])
    assert not torch.allclose(hidden[0, 2], hidden[1, 2], atol=1e-3)


def test_items_vectors_are_by_item_index_without_the_padding(ranker):
    assert ranker.item_vectors.shape == (10, 16)
    assert np.array_equal(ranker.item_vectors[0], ranker.network.items.weight[1].detach().numpy())


def test_tensors_bring_the_same_ranker_back(ranker):
    again = Sequential.from_tensors(ranker.tensors(), ranker.settings)

    assert np.array_equal(again.item_vectors, ranker.item_vectors)
    assert np.array_equal(again.encode([1, 2, 3]), ranker.encode([1, 2, 3]))


def test_an_empty_history_has_no_vector(ranker):
    with pytest.raises(ValueError, match="empty history"):
        ranker.encode([])
