"""Titles as terms: read alike at fitting and serving, compared by cosine, found by their terms."""

import numpy as np
import pytest

from model_training.rankers.fit_retrieval import fit_titles
from services.retrieval.tfidf import NUM_CONTENT_NEIGHBORS, Terms
from tests.retrieval.builders import some_titles

CATALOGUE = ["The red, red CAT", "a blue cat", "Größe 42 für den Hund", "!!", "blue blue blue sky"]


def test_a_title_is_read_at_serving_as_it_was_at_fitting():
    titles = fit_titles(CATALOGUE)

    for item, title in enumerate(CATALOGUE):
        known, read = titles.row(item), titles.read(title)
        assert read.columns.tolist() == known.columns.tolist()
        assert read.weights == pytest.approx(known.weights, abs=1e-6)


def test_words_that_no_title_has_are_lost():
    titles = some_titles()

    assert titles.read("a red submarine").columns.tolist() == [0]
    assert titles.read("submarine").columns.tolist() == []


def test_a_catalogue_without_words_has_no_terms():
    titles = fit_titles(["!", "?"])

    assert titles.cosines(titles.read("anything"), np.array([0, 1])).tolist() == [0, 0]


def test_likeness_is_the_cosine_with_the_sum_of_a_historys_titles():
    titles = some_titles()
    profile = Terms.sum([titles.row(0), titles.row(3), titles.row(4)])  # red, cat, nothing

    found = titles.cosines(profile, np.array([2, 0, 1, 4]))

    assert found == pytest.approx([1, np.sqrt(0.5), 0, 0])


def test_similar_titles_are_found_by_their_terms_best_first():
    titles = some_titles()

    assert titles.similar(titles.read("red cat"), 3).tolist() == [2, 0, 3]


def test_an_untaken_item_stands_between_the_taken_items_with_the_most_similar_titles():
    titles, vectors = some_titles(), np.eye(6, dtype=np.float32)
    was_taken = np.array([True, True, True, True, True, False])

    found = titles.content_vector(titles.row(5), was_taken, vectors)

    # f is red: a is as well, c half so (cosine .707).
    assert found == pytest.approx(np.array([1, 0, 0.7071, 0, 0, 0]) / 1.7071, abs=1e-4)


def test_an_item_with_a_title_like_no_other_stands_nowhere():
    titles, vectors = some_titles(), np.eye(6, dtype=np.float32)

    assert titles.content_vector(titles.row(4), np.ones(6, bool), vectors) is None


def test_only_the_nearest_content_neighbors_count():
    num_same = NUM_CONTENT_NEIGHBORS
    titles = fit_titles(["dark red wine"] * num_same + ["red"] * 5)
    vectors = np.zeros((num_same + 5, 1), np.float32)
    vectors[:num_same] = 1

    found = titles.content_vector(
        titles.read("dark red wine"), np.ones(num_same + 5, bool), vectors
    )

    assert found == pytest.approx([1.0])
