"""Bodies of the health and version routes, and of errors (RFC 9457)."""

from typing import Literal

from pydantic import Field

from services.core.wire.common import Answer, example
from services.core.wire.recommend import ScoredBy

HealthState = Literal["ok", "degraded", "down"]


class Liveness(Answer):
    """The process answers."""

    status: Literal["ok"] = "ok"


class ComponentHealth(Answer):
    """The state of one component that the service needs."""

    state: HealthState
    detail: str


class Readiness(Answer):
    """Whether requests should be sent here, and the state of each component."""

    model_config = example(
        status="ok",
        components={
            "redis": {"state": "ok", "detail": "answers"},
            "engine": {"state": "ok", "detail": "answers"},
            "artifacts": {
                "state": "ok",
                "detail": "retrieval 3f2a9c0d1e4b5a67, ranker c0d1e4b5a673f2a9",
            },
            "adapters": {"state": "ok", "detail": "spring is active"},
            "texts": {"state": "ok", "detail": "480 summaries, 432 distinct"},
        },
    )

    status: HealthState
    components: dict[str, ComponentHealth]


class VersionResponse(Answer):
    """The running code, prompts, weights and artifacts."""

    model_config = example(
        version="0.1.0",
        commit="7c3b0f5d1e9a4826b0c7d2e4f6a8091b3d5c7e9f",
        prompts={"summary": "0a1b", "preference": "2c3d", "scoring": "4e5f"},
        model="1f2e3d4c5b6a7988",
        model_name="llava-v1.6-mistral-7b-hf",
        writer="1f2e3d4c5b6a7988/2c3d4e5f60718293",
        writer_name="llava-v1.6-mistral-7b-hf",
        adapter="8897a6b5c4d3e2f1",
        adapter_name="spring",
        retrieval="3f2a9c0d1e4b5a67",
        ranker="c0d1e4b5a673f2a9",
        cheap_order="fusion",
        final_order="mllm-fusion",
    )

    version: str
    commit: str = Field(default="", description='Of the source; "" if unknown.')
    prompts: dict[str, str] = Field(description="Fingerprint of each prompt.")
    model: str = Field(description="Fingerprint of the base model.")
    model_name: str = Field(default="", description="The base model's name.")
    writer: str = Field(
        default="",
        description="What writes the preferences: model and prompt, by fingerprint.",
    )
    writer_name: str = Field(default="", description="The name of the writer's model.")
    adapter: str = Field(description='"" without an adapter.')
    adapter_name: str = Field(default="", description="The name of the adapter that scores.")
    retrieval: str = Field(description="Fingerprint of the cheap rankers.")
    ranker: str = Field(description='Fingerprint of the weights of fusion; "" without any.')
    cheap_order: ScoredBy = Field(
        description="What orders the candidates of a user with a history before the model scores."
    )
    final_order: ScoredBy = Field(description="What orders the candidates that the model scored.")


class FieldError(Answer):
    """One fault of a request."""

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

    type: str = Field(description="Identifies the kind of problem; stable.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path of the request.")
    request_id: str
    errors: list[FieldError] | None = None
