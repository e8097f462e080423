"""A worker's metrics; `health_server.py` or the API in the same process serves them."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
# Behind a queue an update may wait for hours.
_WAITS = (*_SECONDS, 300, 900, 3600, 4 * 3600, 24 * 3600)


class WorkerMetrics:
    """The worker's metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Every metric starts at zero."""
        counter = partial(Counter, registry=registry)
        histogram = partial(Histogram, registry=registry)
        self.updates = counter(
            "msr_worker_updates",
            "Updates that ended: saved, or not needed since an earlier one took them along",
            ["outcome"],
        )
        self.update_seconds = histogram(
            "msr_worker_update_seconds", "Time an update took", buckets=_SECONDS
        )
        self.update_latency_seconds = histogram(
            "msr_worker_update_latency_seconds",
            "Time from an interaction's arrival to its being in the saved preference",
            buckets=_WAITS,
        )
        self.blocks_written = counter(
            "msr_worker_blocks_written", "Full blocks whose preference was written and saved"
        )
        self.rebuilds = counter(
            "msr_worker_rebuilds",
            "Updates that wrote blocks again: an interaction came late, or the model changed",
        )
        self.duplicates = counter(
            "msr_worker_duplicates", "Deliveries of interactions that a preference covers already"
        )
        self.preference_seconds = histogram(
            "msr_worker_preference_seconds",
            "Time the model took to write one preference",
            buckets=_SECONDS,
        )
        self.summaries = counter(
            "msr_worker_summaries",
            "Summaries of new items: written, or failed for good",
            ["outcome"],
        )
        self.dead_letters = counter("msr_worker_dead_letters", "Updates given up and put aside")
        self.claimed = counter(
            "msr_worker_claimed",
            "Deliveries claimed from a worker that stopped renewing them",
            ["queue"],
        )
        self.postponed = counter(
            "msr_worker_postponed", "Tries that are repeated later, by reason", ["queue", "reason"]
        )
        for outcome in ("saved", "not_needed"):
            self.updates.labels(outcome)
        for outcome in ("written", "failed"):
            self.summaries.labels(outcome)
