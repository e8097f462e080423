"""What a report says: marks, sentences, warnings and facts."""

import numpy as np
import pytest

from model_training.data.protocols import PROTOCOLS
from model_training.evaluation.report import findings
from model_training.evaluation.report.plots import hit_rates, reliability, roc
from tests.model_training.evaluation.report.builders import a_slice, an_evaluation


def test_the_best_value_of_a_metric_is_marked_and_no_other():
    found = findings.rows(an_evaluation(), ["auc"])

    assert [row.model for row in found if row.cells["auc"].best] == ["mllm-fusion"]


def test_the_best_baseline_is_the_one_that_the_last_model_is_compared_with():
    found = findings.rows(an_evaluation(), ["auc"])

    assert [row.model for row in found if row.best_baseline] == ["fusion"]


def test_a_metric_that_no_model_has_is_no_column():
    assert "auc" not in findings.metric_names(an_evaluation("full"))


def test_a_difference_with_a_small_p_value_is_claimed():
    text = findings.verdict(an_evaluation(p_value=0.0004))

    assert text.startswith("mllm-fusion is better than fusion in MRR@5")
    assert "+0.041 [0.012, 0.070], p < 0.001" in text


def test_a_difference_that_may_be_chance_is_not_claimed():
    text = findings.verdict(an_evaluation(p_value=0.2))

    assert "show no significant difference in MRR@5" in text
    assert "p = 0.200" in text
    assert "is better than" not in text


def test_a_model_that_is_worse_is_called_worse():
    text = findings.verdict(an_evaluation(difference=-0.041))

    assert text.startswith("mllm-fusion is worse than fusion")


def test_the_floor_is_named_with_its_numbers():
    evaluation = an_evaluation()
    reached = evaluation.models["popularity"].metrics

    expected = f"popularity reaches AUC {reached['auc']:.3f} and HR@5 {reached['hr@5']:.3f}"
    assert expected in findings.trivial_rankers(evaluation)


def test_the_paper_protocol_is_never_shown_without_its_warning():
    assert "popularity alone does well" in findings.warnings(an_evaluation("paper"))[0]
    assert not [w for w in findings.warnings(an_evaluation()) if "popularity alone" in w]


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        ({"num_users": 199}, "Only 199 test users (fewer than 200)"),
        ({"ablate": "cover"}, "every cover was replaced by an empty one"),
        ({"facts": {"left_out": {"mllm": "no adapter"}}}, "mllm was left out: no adapter"),
        ({"facts": {"shortened": 1200}}, "1,200 prompts were too long"),
        ({"models": ("random", "mllm")}, "Not evaluated in this run: popularity, trending"),
    ],
)
def test_what_a_reader_must_know_is_warned_of(options, warning):
    assert any(warning in found for found in findings.warnings(an_evaluation(**options)))


def test_facts_are_flat_and_without_what_differs_between_runs():
    found = findings.facts(an_evaluation(facts={"versions": {"torch": "2.13.0"}, "ks": [3, 5]}))

    assert ("data: items", "9,535") in found
    assert ("versions: torch", "2.13.0") in found
    assert ("ks", "3, 5") in found
    assert not [name for name, _ in found if "seconds" in name]


def test_the_command_is_the_one_that_the_run_tells_or_else_follows_from_the_evaluation():
    told = an_evaluation(facts={"command": "msr evaluate --data D"})
    untold = an_evaluation(models=("random", "mllm"), ablate="user")

    assert findings.command(told) == "msr evaluate --data D"
    assert findings.command(untold) == (
        "msr evaluate --data DATA --protocol chrono-uniform --models random,mllm --ablate user"
    )


def test_a_slice_counts_hits_of_its_own_users_and_says_when_they_are_few():
    evaluation = an_evaluation(models=("sasrec",), slices=a_slice("cold items", "new"))
    row = findings.slice_rows(evaluation, "cold items")[0]

    hits = evaluation.models["sasrec"].ranks[:7] < 5
    assert (row.num_users, row.few) == (7, True)
    assert row.hit_rates["sasrec"].value == pytest.approx(hits.mean())


def test_a_group_without_users_is_left_out():
    slices = {"cold items": (("new", np.zeros(300, bool)), ("known", np.ones(300, bool)))}

    found = findings.slice_rows(an_evaluation(slices=slices), "cold items")

    assert [row.group for row in found] == ["known"]


def test_the_wilson_interval_of_eight_of_ten_is_the_textbook_one():
    cell = findings.wilson(np.array([True] * 8 + [False] * 2))

    assert (cell.low, cell.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_a_hit_rate_is_the_share_of_ranks_below_k():
    assert hit_rates(np.array([0, 1, 1, 7]), 3).tolist() == [0.25, 0.75, 0.75]


def test_a_roc_of_equal_scores_is_the_diagonal():
    false_rate, true_rate = roc(np.ones((4, 3)))

    assert (false_rate.tolist(), true_rate.tolist()) == ([0, 1], [0, 1])


def test_the_area_under_a_thinned_roc_is_still_the_auc():
    result = an_evaluation(num_users=1000).models["sasrec"]

    false_rate, true_rate = roc(result.scores)

    assert np.trapezoid(true_rate, false_rate) == pytest.approx(result.metrics["auc"], abs=2e-3)


def test_reliability_compares_what_is_promised_with_what_happens():
    means, shares, _, _, sizes = reliability(np.array([[0.95, 0.04], [0.93, 0.06], [0.02, 1.0]]))

    assert means == pytest.approx([0.04, 0.96])
    assert shares == pytest.approx([1 / 3, 2 / 3])
    assert (sizes[0], sizes[9], sizes.sum()) == (3, 3, 6)


def test_every_protocol_is_explained_with_its_number_of_negatives():
    tasks = {name: protocol.explanation.task_of(8999) for name, protocol in PROTOCOLS.items()}

    assert all("8,999" in task for task in tasks.values())
    assert "among 8,999 items drawn uniformly" in tasks["chrono-uniform"]
    assert "8,999 on average" in tasks["full"]
