"""Whether the model still says Yes as often, and as surely, as it did to validation users.

The last scores of each adapter are held against the histogram in its manifest. An adapter without
one (of an older version, or the base model alone) has no drift to tell. The figure has a level of
its own: candidates are the best of the cheap rankers, validation rows are a target among items
drawn at random. What matters is that it moves.
"""

from collections import deque
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.core.drift import ScoreHistogram
from services.engines.contract import EngineIdentity

NUM_SCORES = 5_000
# With ten bins, chance alone then makes about 0.05.
FEWEST_SCORES = 200


class _Window:
    """The bins of the last scores of one adapter."""

    def __init__(self, reference: ScoreHistogram) -> None:
        self.reference = reference
        self.counts = [0] * len(reference.counts)
        self.bins: deque[int] = deque()

    def add(self, probability: float) -> None:
        self.bins.append(self.reference.bin_of(probability))
        self.counts[self.bins[-1]] += 1
        if len(self.bins) > NUM_SCORES:
            self.counts[self.bins.popleft()] -= 1


class ScoreDrift(Collector):
    """Computes the drift when Prometheus asks for it."""

    def __init__(self) -> None:
        """No score has been seen."""
        self._windows: dict[str, _Window] = {}

    def note(self, identity: EngineIdentity, probability: float) -> None:
        """These weights gave a score to a user with a preference, as validation users have one."""
        if identity.validation_scores is None:
            return
        window = self._windows.get(identity.adapter)
        if window is None or window.reference != identity.validation_scores:
            window = self._windows[identity.adapter] = _Window(identity.validation_scores)
        window.add(probability)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """For the registry."""
        drift = GaugeMetricFamily(
            "msr_score_drift_index",
            "Population stability index of the last scores against validation users'",
            labels=["adapter"],
        )
        seen = GaugeMetricFamily(
            "msr_score_drift_window_scores",
            f"Scores that the drift is taken of, at most {NUM_SCORES}; none below {FEWEST_SCORES}",
            labels=["adapter"],
        )
        for adapter, window in self._windows.items():
            seen.add_metric([adapter], len(window.bins))
            if len(window.bins) >= FEWEST_SCORES:
                drift.add_metric([adapter], window.reference.drift(window.counts))
        yield drift
        yield seen
