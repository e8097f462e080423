"""What the API counts and times, in Prometheus' text format at GET /metrics.

One registry an application, so that two applications in one process (tests) do not share counts.
"""

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from services.api.adapter_metrics import AdapterMetrics

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The API's instruments."""

    def __init__(self, num_shortened: Callable[[], int]) -> None:
        """Every instrument starts at zero; `num_shortened` tells the engine's own count."""
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "msr_http_requests",
            "Requests answered",
            ["route", "method", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "msr_http_request_seconds",
            "Time to answer",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.access_refusals = Counter(
            "msr_access_refusals",
            "Requests refused by their API key",
            ["reason"],
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "msr_recommend_stage_seconds",
            "Time in each stage of a recommendation",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.recommendations = Counter(
            "msr_recommendations",
            "Rankings answered; reason is empty if not degraded",
            ["mode", "reason"],
            registry=registry,
        )
        self.candidate_scores = Counter(
            "msr_candidate_scores",
            "Candidates sent to the model, by what came of it",
            ["outcome"],
            registry=registry,
        )
        self.version_waits = Counter(
            "msr_version_waits",
            "Rankings that were to know a version of the history, by whether they did",
            ["outcome"],
            registry=registry,
        )
        self.interactions = Counter(
            "msr_interactions", "Interactions received", ["outcome"], registry=registry
        )
        self.backlog_folds = Gauge(
            "msr_backlog_folds", "Folds that wait or are under way", registry=registry
        )
        self.backlog_bound = Gauge(
            "msr_backlog_bound", "Folds past which interactions are refused", registry=registry
        )
        self.fold_lag = Gauge(
            "msr_fold_lag_seconds", "How long the oldest fold has been waiting", registry=registry
        )
        self.dead_letters = Gauge(
            "msr_dead_letters", "Folds that failed too often", registry=registry
        )
        self.ordering_in_use = Gauge(
            "msr_ordering_in_use",
            "1 for the artifacts that order candidates now",
            ["artifact", "fingerprint"],
            registry=registry,
        )
        self.ordering_reloads = Counter(
            "msr_ordering_reloads",
            "Newly published artifacts that were loaded or refused",
            ["outcome"],
            registry=registry,
        )
        self.adapters = AdapterMetrics(registry)
        Gauge(
            "msr_prompts_shortened",
            "Prompts whose texts were cut, because the model takes no longer ones",
            registry=registry,
        ).set_function(num_shortened)

    def render(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self._registry)
