"""Bodies of `POST /recommend`."""

from typing import Annotated, Literal

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
Caveat = Literal["texts-alike", "texts-of-another-model", "model-of-another-catalogue"]
Priority = Literal["interactive", "background"]
# The type is a string, since a further cheap ranker brings its own name.
_SOURCES = ["sequential", "neighbors", "trending", "titles", "caller", "new"]
Source = Annotated[str, Field(json_schema_extra={"enum": _SOURCES})]
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
    """Ask for the items that a user takes next."""

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
        "`num_scored`, and fusion weighs all their features. `mllm`: the model scores "
        "every candidate and ranks alone. `cheap`: no model.",
    )
    exclude_seen: bool = Field(default=True, description="Leave out items of the user's history.")
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
        description="The deadline. Items that the model has not scored then keep their cheap rank.",
    )
    priority: Priority = Field(
        default="interactive",
        description="`interactive` if a person waits for the response, `background` if nobody does "
        "(a newsletter). Under load `background` requests lose the model's scores first.",
    )
    at_least_version: Version | None = Field(
        default=None,
        description="Read your writes: a version that `POST /interactions` returned for this user. "
        "The request waits up to half of its time until the preference covers the version; "
        "`preference_behind` says if it does not.",
    )


class Part(Answer):
    """A part of the score: the value of one feature, and what it contributes."""

    value: float = Field(description="The feature's value, on its own scale.")
    contribution: float | None = Field(
        description="What it adds to the log-odds of `score`; null if it was not used."
    )


class RecommendedItem(Answer):
    """One item of the ranking."""

    item_id: str
    rank: int = Field(description="1 is best.")
    score: float = Field(
        description="The value that ranks the item: a probability by fusion or the model; without "
        "fusion SASRec's log-probability, or for a user without history how much it is trending. "
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
        description="Which ranker proposed the item, or the caller; `new` is a caller's item that "
        "the cheap rankers were fitted without: they know only its title."
    )
    parts: dict[str, Part] = Field(
        description="The parts of the score by feature: those of the cheap rankers, `margin` "
        "(log-odds of Yes over No) if the model scored the item, and `intercept`. Contributions "
        "add up to the log-odds of `score`."
    )


class RejectedCandidate(Answer):
    """A candidate of the request that was left out."""

    item_id: str
    reason: Literal["unknown-item", "seen"]


class Timings(Answer):
    """Seconds spent in each stage."""

    state_seconds: float = Field(description="Reading the user from the store.")
    candidates_seconds: float = Field(description="Retrieving and ordering candidates.")
    scoring_seconds: float = Field(description="Waiting for the model, cached scores included.")
    total_seconds: float


class RecommendResponse(Answer):
    """The ranking, and how it was made."""

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
                "parts": {
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
    cold: bool = Field(description="True if the user has no preference: scores are not personal.")
    history_version: int = Field(description="Interactions in the user's history; 0 if unknown.")
    preference_version: int = Field(
        description="Interactions that this preference covers; less than `history_version` "
        "while an update waits."
    )
    preference_behind: bool = Field(
        description="True if the preference does not cover `at_least_version` of the request."
    )
    adapter: str | None = Field(
        default=None,
        description="The adapter that scores for this user; null in mode `cheap`.",
    )
    experiment: str | None = Field(
        default=None, description="The running experiment; null if there is none."
    )
    arm: str | None = Field(
        default=None,
        description="The user's arm of it; it does not change while the experiment runs.",
    )
    degraded: bool = Field(description="True if the model did not score all items that it should.")
    reason: DegradedReason | None = Field(
        description="Why the response is degraded. `shed`: some items were not sent to the model "
        "because it could not score them by the deadline. `deadline`: the model was late. "
        "`engine-...`: the engine failed or is unavailable."
    )
    caveats: list[Caveat] = Field(
        default=[],
        description="Why the model's scores are not to be taken at their word. `texts-alike`: its "
        "texts do not vary. `texts-of-another-model`: another model wrote this user's preference. "
        "`model-of-another-catalogue`: it knows its own catalogue only, and not this one. GET "
        "/health/ready has a sentence on each. Empty in mode `cheap`, which asks no model.",
    )
    num_candidates: int = Field(description="Candidates that were ranked.")
    num_scored: int = Field(description="Candidates with a score of the model, cached included.")
    num_cached: int = Field(description="Candidates whose score came from the cache.")
    rejected: list[RejectedCandidate]
    timings: Timings
