"""The API's metrics; `GET /metrics` returns them in Prometheus' text format."""

from collections.abc import Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.api.monitoring.adapter_metrics import AdapterMetrics
from services.api.monitoring.score_drift import ScoreDrift
from services.core import wire
from services.core.errors import AccessError
from services.engines.contract import BreakerState, EngineIdentity, Replicated
from services.telemetry.registry import render

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# Narrow at both ends: few candidates are targets, so most scores are small.
_PROBABILITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)


class Metrics:
    """The API's instruments."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Every instrument starts at zero."""
        self._registry = registry
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
        self.streams_open = Gauge("msr_streams_open", "Open streams of events", registry=registry)
        self.access_refusals = Counter(
            "msr_access_refusals",
            "Requests refused because of their key or its rate",
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
            "Candidates for the model, by outcome",
            ["outcome"],
            registry=registry,
        )
        self.requests_shed = Counter(
            "msr_requests_shed",
            "Rankings with candidates that were not sent to the model for lack of time",
            ["priority"],
            registry=registry,
        )
        self.prompts_under_way = Gauge(
            "msr_prompts_under_way",
            "Prompts of rankings that the engine computes now",
            registry=registry,
        )
        self.version_waits = Counter(
            "msr_version_waits",
            "Rankings with at_least_version, by whether the preference covered it in time",
            ["outcome"],
            registry=registry,
        )
        self.interactions = Counter(
            "msr_interactions", "Interactions received", ["outcome"], registry=registry
        )
        self.backlog_updates = Gauge(
            "msr_backlog_updates",
            "Preference updates that wait or are under way",
            registry=registry,
        )
        self.backlog_bound = Gauge(
            "msr_backlog_bound",
            "Number of updates above which interactions are refused",
            registry=registry,
        )
        self.update_lag = Gauge(
            "msr_update_lag_seconds",
            "How long the oldest update has been waiting",
            registry=registry,
        )
        self.redis_unavailable = Gauge(
            "msr_redis_unavailable",
            "1 while Redis is known to be unavailable: requests that need it fail at once",
            registry=registry,
        )
        self.dead_letters = Gauge(
            "msr_dead_letters", "Updates that failed too often", registry=registry
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
        self.score_probability = Histogram(
            "msr_score_probability",
            "P(Yes) of the candidates that were scored, cached scores left out",
            ["adapter"],
            buckets=_PROBABILITIES,
            registry=registry,
        )
        self._drift = ScoreDrift()
        registry.register(self._drift)
        self.item_cache_lookups = Counter(
            "msr_item_cache_lookups",
            "Items looked up in the process's cache before Redis is asked",
            ["outcome"],
            registry=registry,
        )
        self.item_cache_bytes = Gauge(
            "msr_item_cache_bytes", "Memory that cached items take", registry=registry
        )
        self.redis_up = Gauge("msr_redis_up", "1 if Redis answers", registry=registry)
        self.redis_answer_seconds = Gauge(
            "msr_redis_answer_seconds", "Time of Redis's last answer", registry=registry
        )
        self.redis_used_bytes = Gauge(
            "msr_redis_used_bytes", "Memory that Redis holds", registry=registry
        )
        self.redis_max_bytes = Gauge(
            "msr_redis_max_bytes",
            "Memory above which Redis refuses writes; 0: no limit",
            registry=registry,
        )
        self.redis_clients = Gauge(
            "msr_redis_clients", "Connections that Redis has open", registry=registry
        )
        self.redis_append_only = Gauge(
            "msr_redis_append_only", "1 if Redis appends every write to a file", registry=registry
        )
        self.redis_writes_to_disk = Gauge(
            "msr_redis_writes_to_disk", "1 if the last write to disk succeeded", registry=registry
        )

        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Create series at 0: the rate of a series that first appears with 1 misses that count.

        Series with labels that are not known in advance (routes, adapters) appear with their first
        count.
        """
        for mode in get_args(wire.Mode):
            for reason in ("", *get_args(wire.DegradedReason)):
                self.recommendations.labels(mode, reason)
        for counter, outcomes in (
            (self.candidate_scores, ("cached", "scored", "failed", "late", "shed")),
            (self.requests_shed, get_args(wire.Priority)),
            (self.version_waits, ("reached", "behind")),
            (self.interactions, ("accepted", "duplicate", "rejected")),
            (self.ordering_reloads, ("loaded", "refused")),
            (self.item_cache_lookups, ("hit", "miss")),
            (self.access_refusals, tuple(kind.__name__ for kind in AccessError.__subclasses__())),
        ):
            for outcome in outcomes:
                counter.labels(outcome)

    def note_score(
        self, identity: EngineIdentity, probability: float, *, has_preference: bool
    ) -> None:
        """Record a candidate's score; the drift counts users with a preference only."""
        self.score_probability.labels(identity.adapter or "base").observe(probability)
        if has_preference:
            self._drift.note(identity, probability)

    def note_item_lookups(self, num_hits: int, num_misses: int) -> None:
        """Record lookups in the process's item cache."""
        self.item_cache_lookups.labels("hit").inc(num_hits)
        self.item_cache_lookups.labels("miss").inc(num_misses)

    def watch_replicas(self, engine: Replicated) -> None:
        """Export the state of the engine's servers too."""
        self._registry.register(_ReplicaCollector(engine))

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return render(self._registry)


class _ReplicaCollector(Collector):
    def __init__(self, engine: Replicated) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        breakers = GaugeMetricFamily(
            "msr_replica_breaker",
            "1 for the state of a model server's circuit breaker; open: it gets no prompts",
            labels=["replica", "state"],
        )
        for url, state in self._engine.breaker_states.items():
            for each in get_args(BreakerState):
                breakers.add_metric([url, each], float(each == state))
        hedges = CounterMetricFamily(
            "msr_hedges",
            "Scores requested from a second server because the first was late, by which won",
            labels=["outcome"],
        )
        for outcome, number in self._engine.num_hedges.items():
            hedges.add_metric([outcome], number)
        yield from (breakers, hedges)
