"""The list of cheap rankers of the Protocol `CheapRanker`; a new one is a line here."""

from services.retrieval.ranker import CheapRanker
from services.retrieval.recency import Recency

RANKERS: tuple[type[CheapRanker], ...] = (Recency,)


def optional_rankers() -> list[str]:
    """Names of the rankers that an artifact may lack: those that were added to the list."""
    return [ranker.name for ranker in RANKERS if ranker is not Recency]
