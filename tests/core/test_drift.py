from random import Random

import pytest

from services.core.drift import ScoreHistogram, count_by_bin


def scores(number: int, *, seed: int = 0, exponent: float = 3.0) -> list[float]:
    draw = Random(seed)
    return [draw.random() ** exponent for _ in range(number)]


def test_each_bin_holds_about_as_many_of_the_scores_it_was_made_of():
    histogram = ScoreHistogram.of(scores(1000))

    assert sum(histogram.counts) == 1000
    assert all(99 <= count <= 101 for count in histogram.counts)


def test_scores_of_the_same_distribution_have_hardly_drifted():
    histogram = ScoreHistogram.of(scores(5000))
    others = count_by_bin(histogram.edges, scores(5000, seed=1))

    assert 0 < histogram.drift(others) < 0.02


def test_scores_of_another_distribution_have():
    histogram = ScoreHistogram.of(scores(5000))
    others = count_by_bin(histogram.edges, scores(5000, seed=1, exponent=1.0))

    assert histogram.drift(others) > 0.25


def test_a_bin_that_is_empty_is_not_infinitely_far_away():
    histogram = ScoreHistogram((0.5,), (50, 50))

    assert 1 < histogram.drift((100, 0)) < 10


def test_scores_that_are_all_equal_make_one_bin_below_and_one_at_them():
    histogram = ScoreHistogram.of([0.25] * 30)

    assert (histogram.edges, histogram.counts) == ((0.25,), (0, 30))


@pytest.mark.parametrize(
    ("edges", "counts"),
    [((0.5, 0.5), (1, 1, 1)), ((0.5,), (1,)), ((0.5,), (0, 0)), ((float("nan"),), (1, 1))],
)
def test_what_is_no_histogram_is_refused(edges: tuple[float, ...], counts: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"edges"):
        ScoreHistogram(edges, counts)
