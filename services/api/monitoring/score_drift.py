"""How far the distribution of scores has moved from that of the validation users.

Compares the last scores of each adapter with the histogram in its manifest. An adapter without a
histogram (an older manifest, or the base model alone) has no drift index. The index is never near
0, because candidates are the best of the cheap rankers, and validation rows are a target among
random items. Watch its changes, not its level.
"""

from collections import deque
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.core.drift import ScoreHistogram, count_by_bin
from services.engines.contract import EngineIdentity

NUM_SCORES = 5_000
# With ten bins and so few scores, chance alone gives an index of about 0.05.
FEWEST_SCORES = 200


class ScoreDrift(Collector):
    """Computes the drift when Prometheus asks for it."""

    def __init__(self) -> None:
        """Starts without scores."""
        # By adapter: the histogram in its manifest, and its last scores.
        self._windows: dict[str, tuple[ScoreHistogram, deque[float]]] = {}

    def note(self, identity: EngineIdentity, probability: float) -> None:
        """Record a score for a user with a preference, as validation users have one."""
        reference = identity.validation_scores
        if reference is None:
            return
        window = self._windows.get(identity.adapter)
        if window is None or window[0] != reference:
            window = self._windows[identity.adapter] = (reference, deque(maxlen=NUM_SCORES))
        window[1].append(probability)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called by the registry."""
        drift = GaugeMetricFamily(
            "msr_score_drift_index",
            "Population stability index of the last scores against validation users'",
            labels=["adapter"],
        )
        seen = GaugeMetricFamily(
            "msr_score_drift_window_scores",
            f"Scores in the drift index, at most {NUM_SCORES}; no index below {FEWEST_SCORES}",
            labels=["adapter"],
        )
        for adapter, (reference, scores) in self._windows.items():
            seen.add_metric([adapter], len(scores))
            if len(scores) >= FEWEST_SCORES:
                counts = count_by_bin(reference.edges, scores)
                drift.add_metric([adapter], reference.drift(counts))
        yield drift
        yield seen
