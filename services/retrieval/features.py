"""The features of a candidate that the cheap rankers compute and fusion weighs.

One order, one transformation, for `msr fit-ranker`, `msr evaluate` and the API alike. Every feature
is finite for every item and user, and has a neutral value where the item is unknown.

    popularity   log(1 + users who took the item)
    trending     log(1 + the same, old interactions counting less)
    neighbors    log(1 + item-kNN score of the history)
    sequential   SASRec's log-probability that the item comes next
    titles       TF-IDF cosine of the item's title with the titles of the history
    recency      era of the item minus era of the end of the history, in [-1, 1]; neutral 0

Recency is of the Protocol `CheapRanker`; features of further rankers follow it (`rankers.py`).
"""

from services.retrieval.rankers import RANKERS

FEATURES = (
    *("popularity", "trending", "neighbors", "sequential", "titles"),
    *(ranker.name for ranker in RANKERS),
)
# What fusion adds to them where the multimodal model has scored the candidate.
MARGIN = "margin"
