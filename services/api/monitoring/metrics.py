"""The API's metrics; `GET /metrics` returns them in Prometheus' text format."""

from collections.abc import Iterator
from functools import partial
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.api.monitoring.score_drift import ScoreDrift
from services.core import wire
from services.core.errors import AccessError
from services.engines.contract import BreakerState, EngineIdentity, Replicated

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# Narrow at both ends: few candidates are targets, so most scores are small.
_PROBABILITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
_TWENTIETHS = tuple(step / 20 for step in range(1, 20))
_DIFFERENCES = (-0.5, -0.2, -0.1, -0.05, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_AGREEMENTS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.999)


class Metrics:
    """The API's instruments."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Every instrument starts at zero."""
        self.registry = registry
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        self.requests = counter(
            "msr_http_requests", "Requests answered", ["route", "method", "status"]
        )
        self.request_seconds = histogram(
            "msr_http_request_seconds", "Time to answer", ["route"], buckets=_SECONDS
        )
        self.streams_open = gauge("msr_streams_open", "Open streams of events")
        self.access_refusals = counter(
            "msr_access_refusals", "Requests refused because of their key or its rate", ["reason"]
        )
        self.stage_seconds = histogram(
            "msr_recommend_stage_seconds",
            "Time in each stage of a recommendation",
            ["stage"],
            buckets=_SECONDS,
        )
        self.recommendations = counter(
            "msr_recommendations",
            "Rankings answered; reason is empty if not degraded",
            ["mode", "reason"],
        )
        self.candidate_scores = counter(
            "msr_candidate_scores", "Candidates for the model, by outcome", ["outcome"]
        )
        self.requests_shed = counter(
            "msr_requests_shed",
            "Rankings with candidates that were not sent to the model for lack of time",
            ["priority"],
        )
        self.prompts_under_way = gauge(
            "msr_prompts_under_way", "Prompts of rankings that the engine computes now"
        )
        self.version_waits = counter(
            "msr_version_waits",
            "Rankings with at_least_version, by whether the preference covered it in time",
            ["outcome"],
        )
        self.interactions = counter("msr_interactions", "Interactions received", ["outcome"])
        self.backlog_updates = gauge(
            "msr_backlog_updates", "Preference updates that wait or are under way"
        )
        self.backlog_bound = gauge(
            "msr_backlog_bound", "Number of updates above which interactions are refused"
        )
        self.update_lag = gauge(
            "msr_update_lag_seconds", "How long the oldest update has been waiting"
        )
        self.redis_unavailable = gauge(
            "msr_redis_unavailable",
            "1 while Redis is known to be unavailable: requests that need it fail at once",
        )
        self.dead_letters = gauge("msr_dead_letters", "Updates that failed too often")
        self.ordering_in_use = gauge(
            "msr_ordering_in_use",
            "1 for the artifacts that order candidates now",
            ["artifact", "fingerprint"],
        )
        self.ordering_reloads = counter(
            "msr_ordering_reloads",
            "Newly published artifacts that were loaded or refused",
            ["outcome"],
        )
        # The labels are names that operators chose; experiment and arm are empty if none runs.
        self.adapter_recommendations = counter(
            "msr_adapter_recommendations",
            "Rankings answered, by the adapter that scored for the user",
            ["adapter", "experiment", "arm", "degraded"],
        )
        self.adapter_probability = histogram(
            "msr_adapter_probability",
            "P(Yes) of the candidates that an adapter scored",
            ["adapter", "experiment", "arm"],
            buckets=_TWENTIETHS,
        )
        self.arm_outcomes = counter(
            "msr_arm_outcomes",
            "Interactions with items that had been recommended to the user in this arm",
            ["experiment", "arm"],
        )
        self.shadow_requests = counter(
            "msr_shadow_requests",
            "Requests that a shadow was to score too, by outcome",
            ["adapter", "outcome"],
        )
        self.shadow_agreement = histogram(
            "msr_shadow_rank_agreement",
            "Share of the pairs of candidates that the shadow orders as the answer does",
            ["adapter", "against"],
            buckets=_AGREEMENTS,
        )
        self.shadow_difference = histogram(
            "msr_shadow_probability_difference",
            "P(Yes) of the shadow minus that of the adapter that answered",
            ["adapter", "against"],
            buckets=_DIFFERENCES,
        )
        self.adapter_sync_failed = gauge(
            "msr_adapter_sync_failed", "1 while this process cannot serve the chosen adapters"
        )
        self.score_probability = histogram(
            "msr_score_probability",
            "P(Yes) of the candidates that were scored, cached scores left out",
            ["adapter"],
            buckets=_PROBABILITIES,
        )
        self._drift = ScoreDrift()
        registry.register(self._drift)
        self.item_cache_lookups = counter(
            "msr_item_cache_lookups",
            "Items looked up in the process's cache before Redis is asked",
            ["outcome"],
        )
        self.item_cache_bytes = gauge("msr_item_cache_bytes", "Memory that cached items take")
        self.texts_published = gauge(
            "msr_texts_published", "Published texts of different inputs", ["kind"]
        )
        self.texts_most_frequent_share = gauge(
            "msr_texts_most_frequent_share",
            "Share of the most frequent text among the published ones",
            ["kind"],
        )
        self.redis_up = gauge("msr_redis_up", "1 if Redis answers")
        self.redis_answer_seconds = gauge("msr_redis_answer_seconds", "Time of Redis's last answer")
        self.redis_used_bytes = gauge("msr_redis_used_bytes", "Memory that Redis holds")
        self.redis_max_bytes = gauge(
            "msr_redis_max_bytes", "Memory above which Redis refuses writes; 0: no limit"
        )
        self.redis_clients = gauge("msr_redis_clients", "Connections that Redis has open")
        self.redis_append_only = gauge(
            "msr_redis_append_only", "1 if Redis appends every write to a file"
        )
        self.redis_writes_to_disk = gauge(
            "msr_redis_writes_to_disk", "1 if the last write to disk succeeded"
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
        self.registry.register(_ReplicaCollector(engine))


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
