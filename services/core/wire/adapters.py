"""Bodies of the adapter routes: activation, shadow and experiment."""

from typing import Literal

from pydantic import Field

from services.core.wire.common import MAX_ARMS, Answer, Name, Request, example
from services.core.wire.recommend import ScoredBy

AdapterRole = Literal["active", "previous", "shadow", "arm"]


class AdapterView(Answer):
    """An adapter, its training's manifest, and whether it can serve here.

    Fields of the manifest are null if it cannot be read.
    """

    name: str
    weights: str = Field(
        description='Fingerprint of its files, which identifies it; "" for the base model alone.'
    )
    fingerprint: str | None = Field(description="Fingerprint of the training that made it.")
    stage: str | None = Field(description="The stage of training: `sft`, `dpo` or `rank`.")
    parent: str | None = Field(
        description='Weights of the adapter that its training started from; "" for none.'
    )
    protocol: str | None = Field(description="How its training chose targets and negatives.")
    model: str | None = Field(description="Fingerprint of the base model that it was trained on.")
    model_name: str | None
    calibration: dict[str, float] | None = Field(
        description="Correction from margins to P(Yes), and the calibration error before, after."
    )
    validation: dict[str, float] | None = Field(description="Metrics on validation users.")
    validation_is_foreign: bool = Field(
        default=False,
        description="True if these metrics and the calibration were measured on another catalogue "
        "than this server's data folder holds, or on preferences by another writer: they say "
        "nothing about this deployment.",
    )
    servable: bool
    reason: str | None = Field(description="Why it cannot be served here.")
    roles: list[AdapterRole] = Field(description="Its roles now; often none.")
    ranked_by: ScoredBy = Field(
        description="What orders the items that it scored: `mllm-fusion` if weights of fusion were "
        "fitted for it, else `mllm`, its margin alone."
    )
    note: str | None = Field(description="What is missing for fusion with its margins.")


class ShadowIn(Request):
    """Let an adapter score requests without changing their responses."""

    model_config = example(adapter="summer", share=0.1)

    adapter: Name
    share: float = Field(gt=0, le=1, allow_inf_nan=False, description="Share of all requests.")


class ArmIn(Request):
    """A group of users, and the adapter that scores for them."""

    name: Name
    adapter: Name
    weight: float = Field(
        default=1.0,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="Its share of users is this weight over the sum of all.",
    )


class ExperimentIn(Request):
    """Divide the users among adapters. The same name gives the same division again."""

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
    """The shadow adapter."""

    adapter: str
    share: float


class ArmView(Answer):
    """An arm of the running experiment."""

    name: str
    adapter: str
    share: float = Field(description="Share of the users.")


class ExperimentView(Answer):
    """The running experiment."""

    name: str
    arms: list[ArmView]


class AdaptersResponse(Answer):
    """All adapters, and those that serve."""

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
    active: str = Field(description="The adapter that scores, unless an experiment runs.")
    previous: str | None = Field(description="The adapter that a rollback activates.")
    shadow: ShadowView | None
    experiment: ExperimentView | None
    problem: str | None = Field(
        description="Why this process still serves its earlier adapter instead of the chosen one; "
        "null if it serves the chosen one."
    )
