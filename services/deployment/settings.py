"""Deployment settings, from the environment: read once by an entry point and passed down.

    REDIS_URL=redis://... MSR_ENGINE=vllm MSR_VLLM_URLS=http://vllm:8000 msr serve

Every field is MSR_ and its name in capitals; REDIS_URL alone goes by the name it has everywhere.
Without it REDIS_URL_FILE names a file that holds the URL, as containers get their secrets.
MSR_DATA, MSR_ENGINE, MSR_MODEL, MSR_ADAPTER, MSR_HOST and MSR_PORT stand for options of `msr`,
which reads them itself.
What an experiment varies (learning rate, rank) is no setting: it stands in a YAML file.
"""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from services.core.errors import InputError


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


# Several values in one variable, separated by commas.
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


def _redis_url_from_file() -> SecretStr | None:
    """What the file holds that REDIS_URL_FILE names; InputError if that is nothing."""
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
    """What differs from one deployment to the next."""

    model_config = SettingsConfigDict(env_prefix="MSR_", extra="ignore", frozen=True)

    # The engine. A merged checkpoint scores on servers of its own, under the name `recommender`.
    vllm_urls: Names = ()
    recommender: str | None = None
    recommender_urls: Names = ()
    engine_timeout_seconds: float = Field(120.0, gt=0, description="For one prompt.")
    engine_patience_seconds: float = Field(
        600.0, ge=0, description="How long a batch step waits for a server that went away."
    )

    # Adapters that can be chosen while the API runs, beside the one that it is started with.
    adapters: str | None = Field(
        None, description="Their folder. None: `adapters` in the data folder."
    )
    adapter_poll_seconds: float = Field(
        2.0, gt=0, le=60, description="How often the API looks which adapter was chosen elsewhere."
    )

    # Redis: an URL (which may hold a password), or an embedded server with its data in a folder.
    redis_url: SecretStr | None = Field(
        default_factory=_redis_url_from_file,
        validation_alias=AliasChoices("REDIS_URL", "MSR_REDIS_URL"),
    )
    redis_timeout_seconds: float = Field(2.0, gt=0)
    state: str | None = Field(
        None, description="Folder of the embedded Redis. None: `state` in the data folder."
    )

    # The HTTP server.
    shutdown_seconds: float = Field(10.0, gt=0, description="For requests in hand to end.")

    # What `msr worker` tells over HTTP: nothing, unless a port is given. Beside the API, in one
    # process, the API's /metrics tells it.
    worker_host: str = "127.0.0.1"
    worker_port: int | None = Field(
        None, ge=0, le=65535, description="Of /metrics and /health/live; 0 takes a free one."
    )

    # Traces go to an OpenTelemetry collector (OTLP over HTTP) at this address: nowhere, if unset.
    otlp_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("MSR_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    )

    # Who may call. Off: everybody who reaches the port may do everything.
    require_keys: bool = Field(
        False, description="Ask for an API key, as `msr keys create` makes them."
    )
    open_metrics: bool = Field(
        False, description="Answer GET /metrics without a key of the scope `admin` too."
    )
    key_cache_seconds: float = Field(
        3.0, ge=0, le=60, description="How long a revoked key may still work."
    )

    # The cascade.
    num_scored: int = Field(20, ge=1, le=1000)
    timeout_seconds: float = Field(10.0, ge=0.05, le=60)
    max_in_flight: int = Field(64, ge=1)
    max_backlog: int = Field(
        100_000, ge=1, description="Updates that may wait before interactions are refused."
    )
    item_cache_mb: int = Field(128, ge=1)
    reload_seconds: float = Field(
        5.0, gt=0, description="How often the API looks for newly fitted rankers."
    )

    # Streams of events (GET /users/{id}/preference/events).
    max_streams: int = Field(200, ge=0, description="Open at once in one process.")
    stream_seconds: float = Field(
        300.0, gt=0, description="After which a stream ends and its reader is to come back."
    )

    # Pictures by URL: none, unless hosts are named.
    image_hosts: Names = ()
    image_timeout_seconds: float = Field(5.0, gt=0)
