"""Dashboard and alert rules against what the real programs expose."""

import os
import re
from pathlib import Path

import httpx
import pytest
import yaml

from tests.operations.conftest import Service
from tests.operations.monitoring import (
    MONITORING,
    Exposed,
    Query,
    alert_queries,
    dashboard_queries,
    rules,
)
from tests.processes import program

pytestmark = pytest.mark.slow

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
QUERIES = [*dashboard_queries(), *alert_queries()]
OURS = [query for query in QUERIES if "vllm:" not in query.expression]


@pytest.fixture(scope="module")
def exposed(service: Service) -> Exposed:
    """By API and worker, in processes of their own."""
    return Exposed(service.metrics().values())


@pytest.mark.parametrize("query", OURS, ids=str)
def test_every_metric_and_label_that_is_asked_for_is_exposed(exposed: Exposed, query: Query):
    assert query.selectors(), "asks for nothing"
    assert exposed.fault(query) is None


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("sum(msr_no_such_total)", "msr_no_such_total is not exposed"),
        ('msr_worker_updates_total{kind="x"}', "has no label kind"),
        ('rate(msr_worker_updates_total{outcome="lost"}[5m])', "never has outcome='lost'"),
        ("sum by (route) (msr_worker_updates_total)", r"label\(s\) \['route'\]"),
    ],
)
def test_a_query_for_what_nobody_exposes_is_found(exposed: Exposed, expression: str, fault: str):
    found = exposed.fault(Query("here", expression, frozenset()))

    assert re.search(fault, found or "nothing found")


def test_a_worker_exposes_its_own_metrics_and_the_api_its_own(service: Service):
    texts = service.metrics()

    assert "msr_worker_" not in texts["msr-api"]
    assert "msr_http_" not in texts["msr-worker"]
    assert all("msr_engine_tokens_total" in text for text in texts.values())
    assert httpx.get(f"{service.worker_url}/health/live").json() == {"status": "ok"}


def test_a_worker_inside_the_api_is_seen_at_the_apis_metrics(
    demo_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("REDIS_URL", raising=False)
    environment = os.environ | {"MSR_STATE": str(tmp_path / "state")}
    with program(tmp_path / "log", environment, "serve", "--port", "0", "--data", demo_data) as url:
        text = httpx.get(f"{url}/metrics").text

    assert 'msr_worker_updates_total{outcome="saved"}' in text
    assert "msr_backlog_updates" in text


def test_what_was_done_is_counted(service: Service):
    texts = service.metrics()

    assert 'msr_worker_updates_total{outcome="saved"} 1.0' in texts["msr-worker"]
    assert 'msr_worker_summaries_total{outcome="written"}' in texts["msr-worker"]
    assert re.search(r'msr_score_drift_index\{adapter="\w+"\} \d', texts["msr-api"])
    assert 'msr_candidate_scores_total{outcome="cached"} 0.0' not in texts["msr-api"]


def test_no_metric_tells_who_asked_for_what(service: Service):
    for text in service.metrics().values():
        assert "item-0" not in text
        assert "user-0" not in text
        assert 'new"' not in text


def test_every_metric_of_ours_stands_on_the_operations_page(exposed: Exposed):
    page = OPERATIONS.read_text()
    families = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for name in exposed.names
        if name.startswith("msr_") and not name.endswith("_created")
    }

    assert [name for name in sorted(families) if f"`{name}`" not in page] == []


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_alert_says_how_bad_it_is_what_is_wrong_and_what_to_do(rule: dict):
    annotations = rule["annotations"]

    assert rule["labels"]["severity"] in ("page", "ticket")
    assert annotations["summary"]
    assert annotations["action"]
    assert annotations["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
    assert re.search(rf"^#+ {rule['alert']}$", OPERATIONS.read_text(), re.MULTILINE)


def test_the_jobs_that_queries_name_are_scraped():
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    jobs = {each["job_name"] for each in config["scrape_configs"]}

    assert jobs == {"msr-api", "msr-worker", "vllm"}
    for query in QUERIES:
        for named in re.findall(r'job=~?"([^"]*)"', query.expression):
            assert any(re.fullmatch(named, job) for job in jobs), query
