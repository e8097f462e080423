"""Bodies of `POST /recommend`."""

from typing import Literal

from pydantic import Field

from services.core.wire.common import (
    DEFAULT_K,
    MAX_CANDIDATES,
    MAX_TIMEOUT_SECONDS,
    MIN_TIMEOUT_SECONDS,
    Answer,
    Id,
    K,
    NumScored,
    Request,
    Version,
    example,
)

Mode = Literal["cascade", "mllm", "cheap"]
Priority = Literal["interactive", "background"]
Source = Literal["sequential", "neighbors", "trending", "titles", "caller", "new"]
ScoredBy = Literal["mllm-fusion", "mllm", "fusion", "sequential", "titles", "trending"]
DegradedReason = Literal[
    "deadline",
    "shed",
    "engine-timeout",
    "engine-unavailable",
    "engine-overloaded",
    "engine-refused",
    "engine-failed",
]


class RecommendRequest(Request):
    """Ask for the items a user would take next."""

    model_config = example(user_id="u42", k=5)

    user_id: Id
    candidates: list[Id] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_CANDIDATES,
        description="The items to rank; repeated ids count once. Without them, candidates are "
        "retrieved from the catalogue.",
    )
    k: K = Field(default=DEFAULT_K, description="How many items to return.")
    mode: Mode = Field(
        default="cascade",
        description="`cascade`: the cheap rankers order the candidates, the model scores the best "
        "`num_scored`, and fusion weighs all that is known of these. `mllm`: the model scores "
        "every candidate and ranks alone. `cheap`: no model.",
    )
    exclude_seen: bool = Field(
        default=True, description="Leave out what is in the user's history already."
    )
    num_scored: NumScored | None = Field(
        default=None,
        description="How many of the best candidates the model scores in mode `cascade`, and how "
        "many are retrieved in mode `mllm`; the server's default if left out.",
    )
    timeout_seconds: float | None = Field(
        default=None,
        ge=MIN_TIMEOUT_SECONDS,
        le=MAX_TIMEOUT_SECONDS,
        allow_inf_nan=False,
        description="The deadline. What the model has not scored by then keeps its cheap rank.",
    )
    priority: Priority = Field(
        default="interactive",
        description="Who waits: somebody (`interactive`), or nobody, as for a newsletter "
        "(`background`). When there is more to score than the model can by the deadlines, "
        "`background` goes without it first.",
    )
    at_least_version: Version | None = Field(
        default=None,
        description="Read your writes: a version that `POST /interactions` returned for this user. "
        "The answer waits, for half of the time to the deadline, until the preference covers it; "
        "`preference_behind` says if it does not.",
    )


class Feature(Answer):
    """What one feature said of an item, and what that counted."""

    value: float = Field(description="The feature as it came, on a scale of its own.")
    contribution: float | None = Field(
        description="What it adds to the log-odds of `score`; null if it did not place the item."
    )


class RecommendedItem(Answer):
    """One place of the ranking."""

    item_id: str
    rank: int = Field(description="1 is best.")
    score: float = Field(
        description="What placed the item: a probability by fusion or by the model; without fusion "
        "the log-probability of SASRec, or for a user without history how much it is trending. "
        "Comparable only between items of one `scored_by`."
    )
    scored_by: ScoredBy = Field(
        description="`mllm-fusion`: all features and the model's margin. `mllm`: the margin alone. "
        "`fusion`: the cheap features. `sequential`, `titles`, `trending`: that feature alone."
    )
    probability: float | None = Field(
        description="P(Yes) of the model, calibrated, in [0, 1]; null if it did not score the item."
    )
    source: Source = Field(
        description="Who proposed the item: a ranker or the caller; `new` is a caller's item that "
        "the cheap rankers were fitted without, known to them by its title alone."
    )
    features: dict[str, Feature] = Field(
        description="Each feature by name: those of the cheap rankers, `margin` (log-odds of Yes "
        "over No) if the model scored the item, and `intercept`. Contributions add up to the "
        "log-odds of `score`."
    )


class RejectedCandidate(Answer):
    """A candidate of the caller that was left out."""

    item_id: str
    reason: Literal["unknown-item", "seen"]


class Timings(Answer):
    """Seconds spent in each stage."""

    state_seconds: float = Field(description="Reading the user from the store.")
    candidates_seconds: float = Field(description="Retrieving and ordering candidates.")
    scoring_seconds: float = Field(description="Waiting for the model, cached scores included.")
    total_seconds: float


class RecommendResponse(Answer):
    """The ranking and how it came about."""

    model_config = example(
        user_id="u42",
        mode="cascade",
        items=[
            {
                "item_id": "i7",
                "rank": 1,
                "score": 0.9,
                "scored_by": "mllm-fusion",
                "probability": 0.77,
                "source": "sequential",
                "features": {
                    "popularity": {"value": 4.78, "contribution": -0.12},
                    "trending": {"value": 2.94, "contribution": 0.31},
                    "neighbors": {"value": 0.49, "contribution": 0.22},
                    "sequential": {"value": -4.6, "contribution": 1.35},
                    "titles": {"value": 0.18, "contribution": 0.09},
                    "recency": {"value": 0.02, "contribution": 0.27},
                    "margin": {"value": 2.31, "contribution": 1.16},
                    "intercept": {"value": 1.0, "contribution": -1.08},
                },
            }
        ],
        cold=False,
        history_version=7,
        preference_version=7,
        preference_behind=False,
        adapter="spring",
        experiment="spring-or-summer",
        arm="control",
        degraded=False,
        reason=None,
        num_candidates=20,
        num_scored=20,
        num_cached=12,
        rejected=[],
        timings={
            "state_seconds": 0.001,
            "candidates_seconds": 0.002,
            "scoring_seconds": 0.21,
            "total_seconds": 0.213,
        },
    )

    user_id: str
    mode: Mode
    items: list[RecommendedItem] = Field(description="Best first, at most k.")
    cold: bool = Field(description="True if no preference is known: scores are not personal.")
    history_version: int = Field(description="Interactions in the user's history; 0 if unknown.")
    preference_version: int = Field(
        description="Interactions that the preference used here covers; behind `history_version` "
        "while an update is under way."
    )
    preference_behind: bool = Field(
        description="True if the preference does not cover `at_least_version` of the request."
    )
    adapter: str | None = Field(
        default=None,
        description="The adapter that the model scores by for this user; null in mode `cheap`.",
    )
    experiment: str | None = Field(
        default=None, description="The experiment that runs; null if there is none."
    )
    arm: str | None = Field(
        default=None, description="The user's arm of it: the same in every answer while it runs."
    )
    degraded: bool = Field(description="True if the model did not score all that it was sent.")
    reason: DegradedReason | None = Field(
        description="Why the answer is degraded. `shed`: the model was not asked, at least not for "
        "all, since by the deadline it could not have answered. `deadline`: it was late. "
        "`engine-...`: it failed, or is known to be away."
    )
    num_candidates: int = Field(description="Candidates that were ranked.")
    num_scored: int = Field(description="Candidates with a score of the model, cached included.")
    num_cached: int = Field(description="Candidates whose score came from the cache.")
    rejected: list[RejectedCandidate]
    timings: Timings
