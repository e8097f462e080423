"""Who reaches whom, by the network policies of an overlay."""

from typing import Any

import pytest

from tests.kubernetes.kustomized import OVERLAYS, Object, overlay
from tests.kubernetes.workloads import of_kind, pods, ports, selects

PROGRAMS = {"api", "worker", "batch"}


def policies(objects: list[Object], direction: str) -> list[tuple[Object, list[dict[str, Any]]]]:
    """(policy, what it allows) of one direction."""
    found = of_kind(objects, "NetworkPolicy")
    allowed = direction.lower()
    return [
        (each["spec"], each["spec"].get(allowed, []))
        for each in found
        if direction in each["spec"]["policyTypes"]
    ]


def pods_that_reach(target: str, objects: list[Object]) -> set[str]:
    """Pods of this namespace that some policy lets in."""
    templates = pods(objects)
    return {
        name
        for spec, rules in policies(objects, "Ingress")
        if selects(spec["podSelector"], templates[target])
        for rule in rules
        for peer in rule["from"]
        for name, template in templates.items()
        if "namespaceSelector" not in peer and selects(peer["podSelector"], template)
    }


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_no_policy_allows_is_not_possible(name: str):
    (all_closed,) = [
        each["spec"]
        for each in of_kind(overlay(name), "NetworkPolicy")
        if each["metadata"]["name"] == "nothing-else"
    ]

    assert all_closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_only_our_programs_reach_the_model_and_a_redis_here():
    assert pods_that_reach("vllm", overlay("gpu")) == PROGRAMS
    assert pods_that_reach("redis", overlay("cpu-demo")) == PROGRAMS


def test_no_pod_of_ours_reaches_the_api_or_a_worker():
    assert pods_that_reach("api", overlay("gpu")) == set()
    assert pods_that_reach("worker", overlay("gpu")) == set()


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_port_that_a_policy_opens_is_one_of_the_pods_it_means(name: str):
    objects = overlay(name)
    of_vllm = {8001}  # Prometheus may scrape it, also where an overlay has none

    for spec, rules in policies(objects, "Ingress"):
        meant = [each for each in pods(objects).values() if selects(spec["podSelector"], each)]
        have = {port for template in meant for port in ports(template).values()} | of_vllm
        for rule in rules:
            assert {port["port"] for port in rule["ports"]} <= have


def test_the_model_server_alone_reaches_what_is_outside_and_programs_reach_redis():
    objects = overlay("gpu")
    anywhere = {
        (name, port["port"])
        for spec, rules in policies(objects, "Egress")
        for rule in rules
        if "to" not in rule
        for port in rule["ports"]
        for name, template in pods(objects).items()
        if selects(spec["podSelector"], template)
    }

    redis = {(name, port) for name in PROGRAMS for port in (6379, 6380)}
    assert anywhere == redis | {("vllm", 443)}
