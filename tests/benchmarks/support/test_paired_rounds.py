"""Ratios are taken within a round; what is shown is their median and spread."""

import pytest

from benchmarks.support.paired_rounds import Claim, Rounds, comparison_table


def rounds_of(**seconds: list[float]) -> Rounds:
    return Rounds("any", dict(seconds))


def test_a_round_in_which_all_were_slow_changes_no_ratio():
    rounds = rounds_of(reference=[10.0, 10.0, 40.0], engine=[1.0, 1.0, 4.0])
    judged = rounds.judge(Claim("engine", "reference", 8.0))
    assert (judged["ratio"], judged["spread"]) == (10.0, [10.0, 10.0])


def test_the_ratio_is_the_median_of_the_rounds():
    rounds = rounds_of(reference=[10.0, 10.0, 10.0], engine=[1.0, 2.0, 5.0])
    judged = rounds.judge(Claim("engine", "reference"))
    assert (judged["ratio"], judged["spread"]) == (5.0, [2.0, 10.0])


def test_a_side_that_worked_on_a_part_counts_for_the_whole():
    rounds = rounds_of(reference=[8.0] * 3, engine=[4.0] * 3)
    judged = rounds.judge(Claim("engine", "reference", share=6.0))
    assert (judged["ratio"], judged["against_seconds"]) == (12.0, 48.0)


def test_two_rounds_are_too_few():
    with pytest.raises(ValueError, match="3 are needed"):
        rounds_of(reference=[1.0] * 2, engine=[1.0] * 2).judge(Claim("engine", "reference"))


@pytest.mark.parametrize(("bar", "verdict"), [(9.0, "yes"), (11.0, "NO"), (None, "")])
def test_a_row_says_whether_its_bar_was_reached(bar, verdict):
    rounds = rounds_of(reference=[10.0] * 3, engine=[1.0] * 3)
    table = comparison_table({"x": rounds.judge(Claim("engine", "reference", bar))}, {"x": "work"})
    assert table.splitlines()[-1].split("|")[-2].strip() == verdict


async def test_a_turn_is_reported_per_repetition():
    rounds = Rounds("any", settle_seconds=0.0)

    async def work() -> str:
        return "done"

    assert await rounds.time("engine", work, repeats=1_000_000) == "done"
    assert rounds.seconds["engine"][0] < 1e-6
