"""`msr bench chaos` in its short form."""

from pathlib import Path

import pytest

from benchmarks.faults import chaos_run
from benchmarks.faults.consistency_check import Inconsistencies

PLAN = chaos_run.Plan(
    interactions=300, users=20, kills=3, restarts=1, api_kills=1, cuts=1, batch_size=20
)


@pytest.mark.slow
async def test_nothing_is_lost_or_applied_twice_while_everything_fails(tmp_path: Path):
    outcome = await chaos_run.run(PLAN, tmp_path)

    assert outcome.inconsistencies == Inconsistencies()
    struck = ("kills", "redis_restarts", "api_kills", "network_cuts")
    assert [outcome.figures[each] for each in struck] == [3, 1, 1, 1]
    assert outcome.figures["updates_given_up"] == 0
