"""A protocol is one entry of PROTOCOLS: a test adds one and evaluates under it."""

from pathlib import Path

import pytest

from model_training.data.protocols import PROTOCOLS
from model_training.evaluation import evaluate
from model_training.evaluation.report import write_report
from tests.model_training.builders import frozen_tasks
from tests.model_training.data import toy_protocol


def read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


async def test_a_protocol_from_outside_is_evaluated_and_explained(
    data: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(PROTOCOLS, "toy", toy_protocol.PROTOCOL)
    found = await evaluate.run(data, None, protocol="toy", models=["random", "popularity"])
    page = write_report(data, found)

    assert (found.protocol, found.num_candidates) == ("toy", 21)
    first = {f"i{number}" for number in range(32)}
    assert all(set(task.negatives) <= first for task in frozen_tasks(data, "toy").tasks)
    assert page == f"{data}/reports/toy/report.html"
    assert "among 20 of the first items." in read(page)
