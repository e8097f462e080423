"""The queries of the dashboard and of the alert rules, taken apart, and what programs expose."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import promql_parser
import yaml
from prometheus_client.parser import text_string_to_metric_families

MONITORING = Path(__file__).parents[2] / "docker" / "monitoring"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "msr.json"
# Prometheus adds these to whatever it scrapes.
SCRAPED = frozenset({"job", "instance"})
_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_ANNOTATED = re.compile(r"\$labels\.(\w+)")


@dataclass(frozen=True)
class Query:
    """An expression, where it stands, and the labels that its texts name."""

    where: str
    expression: str
    named_labels: frozenset[str]

    def __str__(self) -> str:
        return self.where

    def parsed(self) -> promql_parser.Expr:
        return promql_parser.parse(self.expression.replace("$__rate_interval", "5m"))

    def selectors(self) -> list[promql_parser.VectorSelector]:
        return _of_type(self.parsed(), promql_parser.VectorSelector)

    def labels_kept(self) -> set[str]:
        """Labels by which anything is grouped."""
        aggregates = _of_type(self.parsed(), promql_parser.AggregateExpr)
        modifiers = [each.modifier for each in aggregates if each.modifier is not None]
        return {label for modifier in modifiers for label in modifier.labels}


def _of_type(expression: promql_parser.Expr, kind: type) -> list:
    found: list = []

    def look(node: promql_parser.Expr) -> None:
        if isinstance(node, kind):
            found.append(node)

    promql_parser.walk(expression, look)
    return found


def dashboard_queries() -> list[Query]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [
        Query(
            f"panel {panel['title']}",
            target["expr"],
            frozenset(_PLACEHOLDER.findall(target["legendFormat"])),
        )
        for panel in panels
        for target in panel.get("targets", ())
    ]


def rules() -> list[dict]:
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alert_queries() -> list[Query]:
    return [
        Query(
            f"alert {rule['alert']}",
            rule["expr"],
            frozenset(_ANNOTATED.findall(rule["annotations"]["summary"])),
        )
        for rule in rules()
    ]


class Exposed:
    """Every series that programs expose: names, and the values of each label."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._labels: dict[str, dict[str, set[str]]] = {}
        for text in texts:
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    values = self._labels.setdefault(sample.name, {})
                    for label, value in sample.labels.items():
                        values.setdefault(label, set()).add(value)

    @property
    def names(self) -> set[str]:
        return set(self._labels)

    def fault(self, query: Query) -> str | None:
        """What of a query no program exposes; None if all of it is there."""
        known: set[str] = set(SCRAPED)
        for selector in query.selectors():
            if selector.name == "up":  # Prometheus' own
                continue
            labels = self._labels.get(selector.name)
            if labels is None:
                return f"{selector.name} is not exposed"
            known |= labels.keys()
            for matcher in selector.matchers.matchers:
                if matcher.name not in labels.keys() | SCRAPED:
                    return f"{selector.name} has no label {matcher.name}"
                equal = matcher.op == promql_parser.MatchOp.Equal
                if equal and matcher.name in labels and matcher.value not in labels[matcher.name]:
                    return f"{selector.name} never has {matcher.name}={matcher.value!r}"
        unknown = (query.labels_kept() | query.named_labels) - known
        return f"nothing has the label(s) {sorted(unknown)}" if unknown else None
