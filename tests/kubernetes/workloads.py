"""Pods, and what points at them, out of the objects of an overlay."""

from collections.abc import Iterable
from typing import Any

from tests.kubernetes.kustomized import Object


def of_kind(objects: Iterable[Object], *kinds: str) -> list[Object]:
    return [each for each in objects if each["kind"] in kinds]


def pod_template(workload: Object) -> Object | None:
    """The pods that an object makes; None if it makes none."""
    spec = workload.get("spec", {})
    template: Object | None = spec.get("jobTemplate", {}).get("spec", spec).get("template")
    return template


def pods(objects: Iterable[Object]) -> dict[str, Object]:
    """Name of the workload -> its pods' template."""
    made = [(each["metadata"]["name"], pod_template(each)) for each in objects]
    return {name: template for name, template in made if template is not None}


def containers(template: Object) -> list[Object]:
    spec = template["spec"]
    return [*spec.get("initContainers", ()), *spec["containers"]]


def ports(template: Object) -> dict[str, int]:
    return {
        port["name"]: port["containerPort"]
        for container in containers(template)
        for port in container.get("ports", ())
    }


def selects(selector: dict[str, Any], template: Object) -> bool:
    """Whether a selector (of a Service: its labels alone) means these pods."""
    labels = template["metadata"]["labels"]
    if not selector.keys() & {"matchLabels", "matchExpressions"}:
        selector = {"matchLabels": selector}
    wanted = selector.get("matchLabels", {}).items()
    asked = selector.get("matchExpressions", ())
    assert all(each["operator"] == "In" for each in asked)
    return labels.items() >= wanted and all(labels.get(e["key"]) in e["values"] for e in asked)
