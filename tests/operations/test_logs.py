"""One `grep` follows a request through the logs of API and worker."""

import json
from pathlib import Path

import pytest

from tests.operations.conftest import REQUEST_ID, Service

pytestmark = pytest.mark.slow


def lines(log: Path) -> list[dict]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_request_is_found_in_both_logs_by_its_id(service: Service):
    api = [line for line in lines(service.api_log) if REQUEST_ID in str(line)]
    worker = [line for line in lines(service.worker_log) if REQUEST_ID in str(line)]

    assert ("/interactions", 202) in [(line.get("route"), line.get("status")) for line in api]
    assert [line["event"] for line in worker] == ["preference_updated"]
    assert worker[0]["request_ids"] == [REQUEST_ID]


def test_every_line_is_json_with_time_level_and_event(service: Service):
    for log in (service.api_log, service.worker_log):
        for line in lines(log):
            assert {"event", "level", "timestamp"} <= line.keys(), line


def test_no_line_tells_a_title_or_a_preference(service: Service):
    text = service.api_log.read_text() + service.worker_log.read_text()

    assert "fox" not in text
    assert "Likes" not in text
