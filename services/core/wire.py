"""The bodies of the HTTP API: what a request may say and what an answer holds.

The server validates with these models and the clients are typed by them, so this file needs
pydantic and the standard library alone. Requests refuse what they do not know; answers may grow
fields.
Versions count the interactions of a user's history: `history_version` is how many were taken in,
`preference_version` how many of them the written preference covers.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from services.core.ids import ID_PATTERN, MAX_ID_CHARS, NAME_PATTERN

MAX_K = 100
DEFAULT_K = 10
MAX_CANDIDATES = 1000
MAX_INTERACTIONS = 1000
MIN_TIMEOUT_SECONDS = 0.05
MAX_TIMEOUT_SECONDS = 60.0
MAX_TITLE_INPUT_CHARS = 10_000
MAX_URL_CHARS = 2048
# 20 MiB of picture (the most that is decoded) in base64.
MAX_IMAGE_BASE64_CHARS = 4 * ((20 * 1024 * 1024 + 2) // 3)
# What a double holds exactly: Redis scripts count in doubles.
MAX_TIMESTAMP_MS = 2**53 - 1
MAX_VERSION = 2**53 - 1
MAX_ARMS = 10


def _whole(value: object) -> object:
    """JSON has one kind of number: 7.0 is an integer as well as 7."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Stands last, and bounds on the type: elsewhere pydantic leaves them out of the schema.
_WHOLE = BeforeValidator(_whole)

K = Annotated[int, Field(ge=1, le=MAX_K), _WHOLE]
NumScored = Annotated[int, Field(ge=1, le=MAX_CANDIDATES), _WHOLE]
TimestampMs = Annotated[int, Field(ge=-MAX_TIMESTAMP_MS, le=MAX_TIMESTAMP_MS), _WHOLE]
Version = Annotated[int, Field(ge=1, le=MAX_VERSION), _WHOLE]
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS, pattern=ID_PATTERN)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=NAME_PATTERN)]
Mode = Literal["cascade", "mllm", "cheap"]
Priority = Literal["interactive", "background"]
Source = Literal["sequential", "neighbors", "trending", "titles", "caller", "new"]
ScoredBy = Literal["mllm-fusion", "mllm", "fusion", "sequential", "titles", "trending"]
ItemStatus = Literal["ready", "pending", "failed"]
DegradedReason = Literal[
    "deadline",
    "shed",
    "engine-timeout",
    "engine-unavailable",
    "engine-overloaded",
    "engine-refused",
    "engine-failed",
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Answer(BaseModel):
    """What a body that the API sends has in common."""

    model_config = ConfigDict(frozen=True)


def example(**fields: Any) -> ConfigDict:
    """The configuration of a body with these fields as its example in the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


# --- POST /recommend -----------------------------------------------------------------------------


class RecommendRequest(_Request):
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
        "`older_than_asked` says if it does not.",
    )


class Part(Answer):
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
    parts: dict[str, Part] = Field(
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
        older_than_asked=False,
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
        "while the worker folds."
    )
    older_than_asked: bool = Field(
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


# --- POST /interactions --------------------------------------------------------------------------


class InteractionIn(_Request):
    """One user acting on one item."""

    model_config = example(user_id="u42", item_id="i7", timestamp_ms=1_767_225_600_000)

    user_id: Id
    item_id: Id
    timestamp_ms: TimestampMs | None = Field(
        default=None,
        description="Milliseconds since the epoch; the server's time if left out, a millisecond "
        "later for each place in the list. Rejected if negative or more than a day ahead.",
    )
    event_id: Id | None = Field(
        default=None,
        description="Makes a retry harmless. If left out it follows from user, item and timestamp, "
        "so a retry is recognized only if it carries its timestamp.",
    )


class InteractionBatch(_Request):
    """Many interactions at once, of any users, in any order."""

    model_config = example(
        interactions=[
            {"user_id": "u42", "item_id": "i7", "timestamp_ms": 1_767_225_600_000},
            {"user_id": "u43", "item_id": "i7", "timestamp_ms": 1_767_225_601_000},
        ]
    )

    interactions: list[InteractionIn] = Field(min_length=1, max_length=MAX_INTERACTIONS)


def _kind_of_interactions(body: Any) -> str:
    if isinstance(body, InteractionBatch) or (isinstance(body, dict) and "interactions" in body):
        return "batch"
    return "one"


Interactions = Annotated[
    Annotated[InteractionIn, Tag("one")] | Annotated[InteractionBatch, Tag("batch")],
    Discriminator(_kind_of_interactions),
]


class RejectedInteraction(Answer):
    """An interaction that was not taken in; the others of its request were."""

    index: int = Field(description="Its place in the request, from 0.")
    user_id: str
    item_id: str
    reason: str = Field(description="What is wrong with it, and what to do.")


class InteractionsResponse(Answer):
    """What became of the interactions. They are stored; preferences follow in the background."""

    model_config = example(accepted=2, duplicates=0, rejected=[], versions={"u42": 8, "u43": 1})

    accepted: int
    duplicates: int = Field(description="Known by their event id, and not counted again.")
    rejected: list[RejectedInteraction]
    versions: dict[str, int] = Field(description="Each user's history version after the request.")


# --- GET /users/{user_id}/preference -------------------------------------------------------------


class PreferenceBlock(Answer):
    """One folded block of the history and the preference written after it."""

    number: int = Field(description="From 1, over the user's whole life.")
    item_ids: list[str]
    preference: str
    written_ms: int = Field(description="When it was written, milliseconds since the epoch.")


class PreferenceResponse(Answer):
    """A user's written preference and how it came about."""

    model_config = example(
        user_id="u42",
        preference="Red outline drawings of animals; earlier blue ones.",
        history_version=4,
        preference_version=4,
        num_blocks=1,
        tail=["i7"],
        timeline=[
            {
                "number": 1,
                "item_ids": ["i1", "i2", "i3"],
                "preference": "Blue drawings of animals.",
                "written_ms": 1_767_225_600_000,
            }
        ],
    )

    user_id: str
    preference: str = Field(description='"" while nothing has been folded.')
    history_version: int
    preference_version: int
    num_blocks: int = Field(description="Full blocks folded so far.")
    tail: list[str] = Field(description="Items of the unfinished block, oldest first.")
    timeline: list[PreferenceBlock] = Field(
        description="Folded blocks, oldest first; of a very long history the latest ones."
    )


# --- items ---------------------------------------------------------------------------------------


class ItemIn(_Request):
    """An item to add or replace: a title and at most one picture."""

    model_config = example(
        item_id="i7",
        title="A red fox in the snow",
        image_url="https://images.example.com/i7.jpg",
    )

    item_id: Id
    title: str = Field(min_length=1, max_length=MAX_TITLE_INPUT_CHARS)
    image: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_IMAGE_BASE64_CHARS,
        description="The picture's file (JPEG, PNG, WebP, GIF or BMP) in base64.",
        json_schema_extra={"contentEncoding": "base64"},
    )
    image_url: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_URL_CHARS,
        description="Where to fetch the picture, on a host that the server allows; not together "
        "with `image`.",
    )


class ItemView(Answer):
    """An item of the catalogue as the model sees it."""

    model_config = example(
        item_id="i7",
        title="A red fox in the snow",
        version="9f86d081884c7d65",
        has_image=True,
        status="ready",
        summary="A red fox drawn in outline on white, calm.",
        reason=None,
    )

    item_id: str
    title: str
    version: str = Field(description="Changes exactly when title or picture change.")
    has_image: bool
    status: ItemStatus = Field(description="Whether the summary is written. All can be scored.")
    summary: str | None
    reason: str | None = Field(description="Why there is no summary, for status `failed`.")


# --- adapters ------------------------------------------------------------------------------------


AdapterRole = Literal["active", "previous", "shadow", "arm"]


class AdapterView(Answer):
    """An adapter, what its training wrote about it, and whether it can serve here.

    What a manifest says is null where none can be read.
    """

    name: str
    weights: str = Field(
        description="Fingerprint of its files, which tells it from any other; "
        '"" for the base model alone.'
    )
    fingerprint: str | None = Field(description="Of the training that made it.")
    stage: str | None = Field(description="Which kind of training: `sft`, `dpo` or `rank`.")
    parent: str | None = Field(
        description='Weights of the adapter that its training started from; "" for none.'
    )
    protocol: str | None = Field(description="How targets met negatives in its training.")
    model: str | None = Field(description="Fingerprint of the base model that it was trained on.")
    model_name: str | None
    calibration: dict[str, float] | None = Field(
        description="What turns its margins into P(Yes), and how far off they were before, after."
    )
    validation: dict[str, float] | None = Field(description="Metrics on validation users.")
    servable: bool
    reason: str | None = Field(description="Why it cannot be served here.")
    roles: list[AdapterRole] = Field(description="What it does now; often nothing.")
    ranked_by: ScoredBy = Field(
        description="What orders the items that it has scored: `mllm-fusion` where weights of "
        "fusion were fitted for it, else `mllm`, its margin alone."
    )
    note: str | None = Field(description="What is missing for fusion with its margins.")


class ShadowIn(_Request):
    """Let an adapter score along, out of sight."""

    model_config = example(adapter="summer", share=0.1)

    adapter: Name
    share: float = Field(gt=0, le=1, allow_inf_nan=False, description="Of all requests.")


class ArmIn(_Request):
    """A part of the users, and the adapter that scores for them."""

    name: Name
    adapter: Name
    weight: float = Field(
        default=1.0,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="Its share of the users is its part of all weights.",
    )


class ExperimentIn(_Request):
    """Divide the users among adapters. The same name divides them the same way again."""

    model_config = example(
        name="spring-or-summer",
        arms=[
            {"name": "control", "adapter": "spring", "weight": 9.0},
            {"name": "treated", "adapter": "summer", "weight": 1.0},
        ],
    )

    name: Name
    arms: list[ArmIn] = Field(min_length=2, max_length=MAX_ARMS)


class ShadowView(Answer):
    """Who scores along."""

    adapter: str
    share: float


class ArmView(Answer):
    """An arm of the experiment that runs."""

    name: str
    adapter: str
    share: float = Field(description="Of the users.")


class ExperimentView(Answer):
    """The experiment that runs."""

    name: str
    arms: list[ArmView]


class AdaptersResponse(Answer):
    """The adapters that there are, and which of them serve."""

    model_config = example(
        model="1f2e3d4c5b6a7988",
        adapters=[
            {
                "name": "spring",
                "weights": "8897a6b5c4d3e2f1",
                "fingerprint": "33e458643b73c03c",
                "stage": "rank",
                "parent": "49b789e816b72db3",
                "protocol": "chrono-uniform",
                "model": "1f2e3d4c5b6a7988",
                "model_name": "llava-v1.6-mistral-7b-hf",
                "calibration": {"slope": 0.78, "intercept": -1.92, "prior": 0.048,
                                "ece_before": 0.055, "ece_after": 0.004},
                "validation": {"auc": 0.957, "mrr@5": 0.748},
                "servable": True,
                "reason": None,
                "roles": ["active"],
                "ranked_by": "mllm-fusion",
                "note": None,
            }
        ],
        active="spring",
        previous=None,
        shadow=None,
        experiment=None,
        problem=None,
    )  # fmt: skip

    model: str = Field(description="Fingerprint of the base model.")
    adapters: list[AdapterView]
    active: str = Field(description="Who scores, unless an experiment runs.")
    previous: str | None = Field(description="Who would score after a rollback.")
    shadow: ShadowView | None
    experiment: ExperimentView | None
    problem: str | None = Field(
        description="Why this process does not serve what was chosen, but what it served before; "
        "null if it does."
    )


# --- operations ----------------------------------------------------------------------------------


class Liveness(Answer):
    """The process answers."""

    status: Literal["ok"] = "ok"


class PartHealth(Answer):
    """State of one thing that the service stands on."""

    state: Literal["ok", "degraded", "down"]
    detail: str


class Readiness(Answer):
    """Whether requests should be sent here, and the state of each part."""

    model_config = example(
        status="ok",
        parts={
            "redis": {"state": "ok", "detail": "answers"},
            "engine": {"state": "ok", "detail": "answers"},
            "artifacts": {
                "state": "ok",
                "detail": "retrieval 3f2a9c0d1e4b5a67, ranker c0d1e4b5a673f2a9",
            },
            "adapters": {"state": "ok", "detail": "spring is active"},
        },
    )

    status: Literal["ok", "degraded", "down"]
    parts: dict[str, PartHealth]


class VersionResponse(Answer):
    """What runs here: code, prompts, weights and artifacts."""

    model_config = example(
        version="0.1.0",
        prompts={"summary": "0a1b", "preference": "2c3d", "scoring": "4e5f"},
        model="1f2e3d4c5b6a7988",
        adapter="8897a6b5c4d3e2f1",
        retrieval="3f2a9c0d1e4b5a67",
        ranker="c0d1e4b5a673f2a9",
        cheap_order="fusion",
        final_order="mllm-fusion",
    )

    version: str
    prompts: dict[str, str] = Field(description="Fingerprint of each prompt.")
    model: str
    adapter: str = Field(description='"" without an adapter.')
    retrieval: str = Field(description="Fingerprint of the cheap rankers.")
    ranker: str = Field(description='Fingerprint of the weights of fusion; "" without any.')
    cheap_order: ScoredBy = Field(
        description="What orders candidates of a user with a history before the model sees them."
    )
    final_order: ScoredBy = Field(description="What orders those that the model has scored.")


# --- problems ------------------------------------------------------------------------------------


class FieldError(Answer):
    """One thing wrong with a request."""

    field: str = Field(description="Where: a dotted path, such as `body.interactions.3.item_id`.")
    message: str


class Problem(Answer):
    """An error (RFC 9457, application/problem+json)."""

    model_config = example(
        type="/problems/unknown-user",
        title="Unknown user",
        status=404,
        detail="user 'u404' has no interactions",
        instance="/users/u404/preference",
        request_id="5f0c1f4e8a7b4c55",
        errors=None,
    )

    type: str = Field(description="Stable; tells the kinds of problems apart.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path that was asked for.")
    request_id: str
    errors: list[FieldError] | None = None
