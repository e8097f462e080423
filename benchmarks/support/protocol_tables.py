"""How benchmarks of rankers show their figures: `{protocol: {model: {metric: value}}}`."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.support.runner import markdown

METRIC_NAMES = {"auc": "AUC", "hr@5": "HR@5", "mrr@5": "MRR@5", "hr@10": "HR@10"}

# Protocol, model, what is asked, bar in words, measured, whether it is reached.
Check = tuple[str, str, str, str, float, bool]


def checks_table(checks: Sequence[Check]) -> str:
    """A row a bar."""
    header = ("protocol", "model", "metric", "bar", "measured", "reached")
    rows = [
        (protocol, model, METRIC_NAMES.get(metric, metric), bar, f"{value:.3f}", _yes(held))
        for protocol, model, metric, bar, value, held in checks
    ]
    return markdown(header, rows)


def metrics_table(figures: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """A row a protocol and model: METRIC_NAMES with their intervals."""
    rows = [
        (protocol, model, *(_with_interval(found, metric) for metric in METRIC_NAMES))
        for protocol, models in figures.items()
        for model, found in models.items()
    ]
    return markdown(("protocol", "model", *METRIC_NAMES.values()), rows)


def _yes(held: bool) -> str:
    return "yes" if held else "NO"


def _with_interval(found: Mapping[str, float], metric: str) -> str:
    if metric not in found:
        return ""
    return f"{found[metric]:.3f} ({found[metric + '_low']:.3f} to {found[metric + '_high']:.3f})"
