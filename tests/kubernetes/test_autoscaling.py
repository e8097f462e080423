"""What the autoscalers ask for is what our programs expose."""

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from services.api.monitoring.metrics import Metrics
from tests.kubernetes.kustomized import OVERLAYS, overlay
from tests.kubernetes.test_manifests import NOT_APPLIED
from tests.kubernetes.workloads import of_kind
from tests.operations.monitoring import Query

RULES = {
    rule["name"]["as"]: rule
    for rule in yaml.safe_load(NOT_APPLIED.read_text())["rules"]["external"]
}


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_metric_that_scales_has_a_rule_and_every_rule_scales(name: str):
    asked = {
        metric["external"]["metric"]["name"]
        for scaler in of_kind(overlay(name), "HorizontalPodAutoscaler")
        for metric in scaler["spec"]["metrics"]
        if metric["type"] == "External"
    }

    assert asked == RULES.keys()


@pytest.mark.parametrize("name", RULES)
def test_a_rule_asks_for_a_metric_that_the_api_exposes(name: str):
    registry = CollectorRegistry()
    Metrics(registry)
    exposed = {family.name for family in registry.collect()}
    query = Query(name, RULES[name]["metricsQuery"], frozenset())

    names = {selector.name for selector in query.selectors()}
    assert {name.removesuffix("_bucket") for name in names} == {name}
    assert name in exposed
    series = promql_parser.parse(RULES[name]["seriesQuery"])
    assert isinstance(series, promql_parser.VectorSelector)
    assert series.name in names
