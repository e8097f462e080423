"""P(Yes) comes true as often as it says, on users that nothing was fitted on."""

import numpy as np
import pytest
from scipy.special import expit

from model_training.finetune import calibrate
from model_training.scoring.metrics import expected_calibration_error
from services.core.errors import EmptyDataset, ModelUnusable

RNG = np.random.default_rng(0)
# True log-odds of 2,000 users' 5 rows each, and what came of them.
LOG_ODDS = RNG.normal(-1.5, 2.0, 10_000)
LABELS = (RNG.random(10_000) < expit(LOG_ODDS)).astype(int)
USERS = [f"u{row // 5}" for row in range(10_000)]


def test_the_true_log_odds_are_found_behind_a_stretched_and_shifted_margin():
    calibration = calibrate.fit(3.0 * LOG_ODDS + 2.0, LABELS)

    assert calibration.slope == pytest.approx(1 / 3, rel=0.05)
    assert calibration.intercept == pytest.approx(-2 / 3, abs=0.05)


def test_an_overconfident_adapter_is_corrected_for_users_that_it_was_not_fitted_on():
    measured = calibrate.measure(3.0 * LOG_ODDS + 2.0, LABELS, USERS)

    assert measured["ece_before"] > 0.1
    assert measured["ece_after"] < 0.02


def test_each_half_of_the_users_is_judged_by_what_the_other_half_says():
    # Two users whose margins mean opposite things: neither helps the other.
    margins = np.array([1.0, -1.0, -1.0, 1.0, 2.0, 2.0])
    labels = np.array([1, 0, 0, 1, 1, 0])
    honest = calibrate.measure(margins, labels, ["a", "b", "a", "b", "a", "b"])["ece_after"]

    calibration = calibrate.fit(margins, labels)
    fitted_on_all = [calibration.probability(margin) for margin in margins]
    assert honest > expected_calibration_error(fitted_on_all, labels)


def test_rows_that_a_threshold_separates_give_a_finite_slope():
    calibration = calibrate.fit([-2.0, -1.0, 1.0, 2.0], [0, 0, 1, 1])

    assert 0 < calibration.slope < 10


@pytest.mark.parametrize("label", [0, 1])
def test_a_class_that_never_appears_is_refused(label: int):
    with pytest.raises(EmptyDataset, match="targets and negatives"):
        calibrate.fit([0.1, 0.2, 0.3], [label] * 3)


@pytest.mark.parametrize("margins", [[3.0, 2.0, -2.0, -3.0], [1.0, 1.0, 1.0, 1.0]])
def test_an_adapter_no_better_than_chance_is_refused(margins: list[float]):
    with pytest.raises(ModelUnusable, match="no better than chance"):
        calibrate.fit(margins, [0, 0, 1, 1])


def test_one_user_is_too_few_for_an_honest_figure():
    with pytest.raises(EmptyDataset, match="two validation users"):
        calibrate.measure([1.0, 0.0], [1, 0], ["u1", "u1"])
