"""SASRec's training: it learns an order, resumes to the same weights, and stops in time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from model_training.rankers import fit_sasrec
from model_training.rankers.fit_sasrec import SasRecConfig, fit, title_features
from services.core.errors import ModelUnusable
from services.retrieval.sasrec import SasRecShape, Sequential

NUM_ITEMS = 12
SHAPE = SasRecShape(dim=16, num_layers=1, num_heads=2, max_history=8)
QUICK = SasRecConfig(shape=SHAPE, dropout=0.0, num_epochs=12, batch_size=16, learning_rate=1e-2)


def circles(num_users: int = 60, length: int = 6) -> list[list[int]]:
    """Users who go around the items by steps of one, from different starts."""
    return [[(user + step) % NUM_ITEMS for step in range(length)] for user in range(num_users)]


def best_next(ranker: Sequential, history: Sequence[int]) -> int:
    return int(np.argmax(ranker.item_vectors @ ranker.encode(history)))


def test_it_learns_what_comes_next():
    ranker = fit(circles(), NUM_ITEMS, [], config=QUICK)

    assert [best_next(ranker, [k, k + 1]) for k in range(9)] == list(range(2, 11))


def test_a_softmax_over_a_sample_learns_the_same_order(monkeypatch):
    monkeypatch.setattr(fit_sasrec, "MAX_EXACT_ITEMS", 0)
    monkeypatch.setattr(fit_sasrec, "NUM_SAMPLED", 8)

    ranker = fit(circles(), NUM_ITEMS, [], config=QUICK)

    assert [best_next(ranker, [k, k + 1]) for k in range(9)] == list(range(2, 11))


def test_the_same_seed_gives_the_same_weights():
    first, second = (fit(circles(), NUM_ITEMS, [([3, 4], 5)], config=QUICK) for _ in range(2))

    assert np.array_equal(first.item_vectors, second.item_vectors)


def test_a_run_killed_after_any_epoch_ends_with_the_weights_of_an_undisturbed_one(
    tmp_path: Path, monkeypatch
):
    config = SasRecConfig(shape=SHAPE, num_epochs=5, batch_size=16)
    whole = fit(circles(), NUM_ITEMS, [([3, 4], 5)], config=config)
    checkpoint = tmp_path / "sasrec.pt"
    save = fit_sasrec._save

    def save_and_die(state, path):
        save(state, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(fit_sasrec, "_save", save_and_die)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            fit(circles(), NUM_ITEMS, [([3, 4], 5)], checkpoint, config=config)
    monkeypatch.undo()
    resumed = fit(circles(), NUM_ITEMS, [([3, 4], 5)], checkpoint, config=config)

    assert np.array_equal(resumed.item_vectors, whole.item_vectors)
    assert np.array_equal(resumed.encode([1, 2]), whole.encode([1, 2]))


def test_training_ends_early_when_validation_gets_no_better(monkeypatch):
    epochs = []
    monkeypatch.setattr(
        fit_sasrec._Validation,
        "reciprocal_rank",
        lambda self, network: epochs.append(1) or (0.5 if len(epochs) == 2 else 0.1),
    )

    fit(circles(), NUM_ITEMS, [([3, 4], 5)], config=QUICK)

    assert len(epochs) == 2 + fit_sasrec.PATIENCE


def test_without_validation_users_every_epoch_is_run(tmp_path: Path):
    checkpoint = tmp_path / "sasrec.pt"

    ranker = fit(circles(), NUM_ITEMS, [], checkpoint, config=QUICK)

    assert best_next(ranker, [3, 4]) == 5
    assert checkpoint.exists()


def test_items_that_look_alike_get_vectors_alike_though_one_was_never_taken():
    features = np.eye(NUM_ITEMS, dtype=np.float32)
    features[11] = features[3]  # nobody takes item 11
    histories = [[item for item in history if item != 11] for history in circles()]

    ranker = fit(histories, NUM_ITEMS, [], config=QUICK, item_features=features)

    likeness = ranker.item_vectors @ ranker.item_vectors[11]
    assert int(np.argmax(likeness[:11])) == 3


def test_titles_with_the_same_words_have_the_same_features():
    rows = sp.csr_array(np.array([[1, 0, 0], [0, 0.6, 0.8], [1, 0, 0], [0, 0, 0]], float))

    features = title_features(rows)

    np.testing.assert_allclose(features[0], features[2])
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), [1, 1, 1, 0], atol=1e-6)


def test_a_catalogue_of_one_term_has_no_features():
    assert title_features(sp.csr_array(np.ones((3, 1)))).shape == (3, 0)


@pytest.mark.parametrize("num_epochs", [1, 2, 9, 10, 11])
def test_one_batch_of_users_trains_for_any_number_of_epochs(num_epochs: int):
    config = SasRecConfig(shape=SHAPE, num_epochs=num_epochs)

    assert np.isfinite(fit(circles(5), NUM_ITEMS, [], config=config).item_vectors).all()


def test_histories_of_one_item_teach_nothing_and_do_no_harm():
    ranker = fit([[1], [2]], NUM_ITEMS, [], config=QUICK)

    assert np.isfinite(ranker.encode([1])).all()


def test_a_loss_that_is_no_number_ends_the_training():
    config = SasRecConfig(shape=SHAPE, num_epochs=9, learning_rate=1e30, max_gradient_norm=1e30)

    with pytest.raises(ModelUnusable, match="loss is"):
        fit(circles(), NUM_ITEMS, [], config=config)


def test_a_damaged_checkpoint_is_trained_over(tmp_path: Path):
    checkpoint = tmp_path / "sasrec.pt"
    whole = fit(circles(), NUM_ITEMS, [([3, 4], 5)], checkpoint, config=QUICK)
    checkpoint.write_bytes(checkpoint.read_bytes()[:3000])
    again = fit(circles(), NUM_ITEMS, [([3, 4], 5)], checkpoint, config=QUICK)

    assert np.array_equal(again.item_vectors, whole.item_vectors)
