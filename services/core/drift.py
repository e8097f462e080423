"""How far recent scores have drifted from those on validation users.

    training   reference = ScoreHistogram.of(probabilities)      kept in the adapter's manifest
    serving    reference.drift(counts of recent scores by bin)

The measure is the population stability index, the sum over bins of
(share now - share then) x ln(share now / share then): 0 for equal shares; by
convention, above 0.25 means another population. For n scores of an unchanged distribution it is
about (bins - 1) / n.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, log

NUM_BINS = 10


@dataclass(frozen=True, slots=True)
class ScoreHistogram:
    """P(Yes) in bins that hold about equally many validation rows.

    `edges` are the inner ones, ascending; a score on an edge counts in the bin above it.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        """ValueError for edges or counts that form no histogram."""
        ascending = all(low < high for low, high in pairwise(self.edges))
        if not ascending or not all(isfinite(edge) for edge in self.edges):
            raise ValueError(f"the edges {self.edges} of a score histogram do not ascend")
        if len(self.counts) != len(self.edges) + 1 or not sum(self.counts) > 0:
            raise ValueError(f"{len(self.edges)} edges do not go with the counts {self.counts}")

    @classmethod
    def of(cls, probabilities: Sequence[float]) -> "ScoreHistogram":
        """Deciles; fewer bins where many scores are equal. ValueError for no scores."""
        ordered = sorted(probabilities)
        inner = {ordered[k * len(ordered) // NUM_BINS] for k in range(1, NUM_BINS)}
        # Short, because a vLLM server carries them in a model name.
        edges = tuple(sorted({float(f"{edge:.6g}") for edge in inner}))
        return cls(edges, count_by_bin(edges, probabilities))

    def drift(self, counts: Sequence[int]) -> float:
        """The population stability index of scores with these counts by bin; at least one score.

        Half a score is added to each bin, so that an empty bin does not make the index infinite.
        """
        return sum(
            (now - then) * log(now / then)
            for now, then in zip(_shares(counts), _shares(self.counts), strict=True)
        )


def count_by_bin(edges: Sequence[float], probabilities: Sequence[float]) -> tuple[int, ...]:
    """How many scores lie between each two edges, the outer bins included."""
    counts = [0] * (len(edges) + 1)
    for probability in probabilities:
        counts[bisect_right(edges, probability)] += 1
    return tuple(counts)


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) + 0.5 * len(counts)
    return [(count + 0.5) / total for count in counts]
