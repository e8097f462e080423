"""Deployment settings from the environment; an entry point reads them once and passes them down.

    REDIS_URL=redis://... MSR_ENGINE=vllm MSR_VLLM_URLS=http://vllm:8000 msr serve

Each variable is MSR_ and the field's name in capitals, except REDIS_URL, whose name is common.
Without REDIS_URL, REDIS_URL_FILE may name a file that contains the URL (a container's secret).
MSR_DATA, MSR_ENGINE, MSR_MODEL, MSR_ADAPTER, MSR_HOST and MSR_PORT are options of `msr`, which
reads them itself. Values that an experiment varies (learning rate, rank) are in a YAML file.
"""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from services.core.errors import InputError
from services.core.prompts import Sampling


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return value


# Several values in one variable, separated by commas.
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


def _redis_url_from_file() -> SecretStr | None:
    """The content of the file that REDIS_URL_FILE names; InputError if there is none."""
    path = os.environ.get("REDIS_URL_FILE")
    if not path:
        return None
    try:
        url = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"REDIS_URL_FILE: {path} cannot be read ({error}); name a file that holds the URL of "
            "Redis and that this user may read"
        ) from error
    if not url:
        raise InputError(f"REDIS_URL_FILE: {path} is empty; write the URL of Redis into it")
    return SecretStr(url)


class Settings(BaseSettings):
    """The values that differ between deployments."""

    model_config = SettingsConfigDict(env_prefix="MSR_", extra="ignore", frozen=True)

    # The engine. A merged checkpoint has servers of its own; its model name is `recommender`.
    vllm_urls: Names = ()
    recommender: str | None = None
    recommender_urls: Names = ()
    # A model of its own for the preferences; None: the model that summarizes and scores.
    writer: str | None = Field(
        None, description="Checkpoint folder or hub name; with MSR_WRITER_URLS its name there."
    )
    writer_urls: Names = ()
    engine_timeout_seconds: float = Field(120.0, gt=0, description="For one prompt.")
    engine_patience_seconds: float = Field(
        600.0, ge=0, description="How long an offline step waits for a server that is unavailable."
    )

    # How preferences are written; offline steps and workers must agree.
    preference_temperature: float = Field(
        0.0, ge=0, le=2, allow_inf_nan=False, description="0: greedily. Above: by sampling."
    )
    preference_top_p: float = Field(
        1.0, gt=0, le=1, description="Sample from the likeliest tokens of this share."
    )

    # Adapters that can be activated while the API runs.
    adapters: str | None = Field(
        None, description="Their folder. None: `adapters` in the data folder."
    )
    adapter_poll_seconds: float = Field(
        2.0,
        gt=0,
        le=60,
        description="Seconds between two looks for a choice made by another process.",
    )

    # Redis: a URL (it may contain a password), or an embedded server with its data in a folder.
    redis_url: SecretStr | None = Field(
        default_factory=_redis_url_from_file,
        validation_alias=AliasChoices("REDIS_URL", "MSR_REDIS_URL"),
    )
    redis_timeout_seconds: float = Field(2.0, gt=0)
    state: str | None = Field(
        None, description="Folder of the embedded Redis. None: `state` in the data folder."
    )

    # The HTTP server.
    shutdown_seconds: float = Field(10.0, gt=0, description="For running requests to end.")

    # The HTTP server of `msr worker`: none, unless a port is set. The metrics of a worker inside
    # the API's process are at the API's /metrics.
    worker_host: str = "127.0.0.1"
    worker_port: int | None = Field(
        None, ge=0, le=65535, description="Of /metrics and /health/live; 0 takes a free one."
    )

    # The OpenTelemetry collector (OTLP over HTTP) that gets the traces; no traces if unset.
    otlp_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("MSR_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    )

    # API keys. Without them everybody who can reach the port may do everything.
    require_keys: bool = Field(False, description="Require an API key (`msr keys create`).")
    open_metrics: bool = Field(False, description="Answer GET /metrics without a key.")
    key_cache_seconds: float = Field(
        3.0, ge=0, le=60, description="How long a revoked key may still work."
    )

    # The cascade.
    num_scored: int = Field(20, ge=1, le=1000)
    timeout_seconds: float = Field(10.0, ge=0.05, le=60)
    max_in_flight: int = Field(
        64, ge=1, description="Prompts of one ranking that the engine computes at once."
    )
    max_backlog: int = Field(
        100_000,
        ge=1,
        description="Waiting preference updates above which interactions are refused.",
    )
    item_cache_mb: int = Field(128, ge=1)
    reload_seconds: float = Field(
        5.0, gt=0, description="Seconds between two looks for newly fitted rankers."
    )

    # Streams of events (GET /users/{id}/preference/events).
    max_streams: int = Field(200, ge=0, description="Open at once in one process.")
    stream_seconds: float = Field(
        300.0, gt=0, description="After which a stream ends; the client reconnects."
    )

    # Images by URL: only from these hosts.
    image_hosts: Names = ()
    image_timeout_seconds: float = Field(5.0, gt=0)

    @property
    def sampling(self) -> Sampling | None:
        """Of preferences; None for greedy decoding. InputError for a top-p that has no effect."""
        if self.preference_temperature > 0:
            return Sampling(self.preference_temperature, self.preference_top_p)
        if self.preference_top_p < 1:
            raise InputError(
                "MSR_PREFERENCE_TOP_P has no effect on greedy decoding; set "
                "MSR_PREFERENCE_TEMPERATURE above 0, or unset it"
            )
        return None
