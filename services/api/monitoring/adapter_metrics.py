"""Metrics of each adapter: rankings, probabilities, and how a shadow or an arm compares."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_PROBABILITIES = tuple(step / 20 for step in range(1, 20))
_DIFFERENCES = (-0.5, -0.2, -0.1, -0.05, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_AGREEMENTS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.999)


class AdapterMetrics:
    """The instruments; the labels are names that operators chose."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """`experiment` and `arm` are empty where no experiment runs."""
        self._recommendations = Counter(
            "msr_adapter_recommendations",
            "Rankings answered, by the adapter that scored for the user",
            ["adapter", "experiment", "arm", "degraded"],
            registry=registry,
        )
        self._probability = Histogram(
            "msr_adapter_probability",
            "P(Yes) of the candidates that an adapter scored",
            ["adapter", "experiment", "arm"],
            buckets=_PROBABILITIES,
            registry=registry,
        )
        self.outcomes = Counter(
            "msr_arm_outcomes",
            "Interactions with items that had been recommended to the user in this arm",
            ["experiment", "arm"],
            registry=registry,
        )
        self.shadow_requests = Counter(
            "msr_shadow_requests",
            "Requests that a shadow was to score too, by outcome",
            ["adapter", "outcome"],
            registry=registry,
        )
        self.shadow_agreement = Histogram(
            "msr_shadow_rank_agreement",
            "Share of the pairs of candidates that the shadow orders as the answer does",
            ["adapter", "against"],
            buckets=_AGREEMENTS,
            registry=registry,
        )
        self._shadow_difference = Histogram(
            "msr_shadow_probability_difference",
            "P(Yes) of the shadow minus that of the adapter that answered",
            ["adapter", "against"],
            buckets=_DIFFERENCES,
            registry=registry,
        )
        self.sync_failed = Gauge(
            "msr_adapter_sync_failed",
            "1 while this process cannot serve the chosen adapters",
            registry=registry,
        )

    def note_recommendation(
        self,
        adapter: str,
        experiment: str,
        arm: str,
        probabilities: Iterable[float],
        *,
        degraded: bool,
    ) -> None:
        """Count a ranking in mode `cascade` or `mllm`, and the probabilities in it."""
        self._recommendations.labels(adapter, experiment, arm, str(degraded).lower()).inc()
        histogram = self._probability.labels(adapter, experiment, arm)
        for probability in probabilities:
            histogram.observe(probability)

    def note_differences(self, adapter: str, against: str, differences: Iterable[float]) -> None:
        """Count how a shadow's probabilities differ for the candidates of one request."""
        histogram = self._shadow_difference.labels(adapter, against)
        for difference in differences:
            histogram.observe(difference)
