"""A worker's metrics; `health_server.py` or the API in the same process serves them."""

from prometheus_client import CollectorRegistry, Counter, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
# Behind a queue an update may wait for hours.
_WAITS = (*_SECONDS, 300, 900, 3600, 4 * 3600, 24 * 3600)


class WorkerMetrics:
    """The worker's metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Every metric starts at zero."""
        self.updates = Counter(
            "msr_worker_updates",
            "Updates that ended: saved, or not needed since an earlier one took them along",
            ["outcome"],
            registry=registry,
        )
        self.update_seconds = Histogram(
            "msr_worker_update_seconds",
            "Time an update took",
            buckets=_SECONDS,
            registry=registry,
        )
        self.update_latency_seconds = Histogram(
            "msr_worker_update_latency_seconds",
            "Time from an interaction's arrival to its being in the saved preference",
            buckets=_WAITS,
            registry=registry,
        )
        self.blocks_written = Counter(
            "msr_worker_blocks_written",
            "Full blocks whose preference was written and saved",
            registry=registry,
        )
        self.rebuilds = Counter(
            "msr_worker_rebuilds",
            "Updates that wrote blocks again: an interaction came late, or the model changed",
            registry=registry,
        )
        self.duplicates = Counter(
            "msr_worker_duplicates",
            "Deliveries of interactions that a preference covers already",
            registry=registry,
        )
        self.preference_seconds = Histogram(
            "msr_worker_preference_seconds",
            "Time the model took to write one preference",
            buckets=_SECONDS,
            registry=registry,
        )
        self.summaries = Counter(
            "msr_worker_summaries",
            "Summaries of new items: written, or failed for good",
            ["outcome"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "msr_worker_dead_letters", "Updates given up and put aside", registry=registry
        )
        self.claimed = Counter(
            "msr_worker_claimed",
            "Deliveries claimed from a worker that stopped renewing them",
            ["queue"],
            registry=registry,
        )
        self.postponed = Counter(
            "msr_worker_postponed",
            "Tries that are repeated later, by reason",
            ["queue", "reason"],
            registry=registry,
        )
        for outcome in ("saved", "not_needed"):
            self.updates.labels(outcome)
        for outcome in ("written", "failed"):
            self.summaries.labels(outcome)
