from pathlib import Path

import pytest
from pydantic import ValidationError

from services.core.errors import InputError
from services.core.prompts import Sampling
from services.deployment.settings import Settings


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSR_VLLM_URLS", "http://a:8000, http://b:8000")
    monkeypatch.setenv("MSR_IMAGE_HOSTS", "")
    settings = Settings()
    assert settings.vllm_urls == ("http://a:8000", "http://b:8000")
    assert settings.image_hosts == ()


def test_redis_goes_by_its_common_name_and_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:password@redis:6379/0")
    settings = Settings()
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value().startswith("redis://")
    assert "password" not in repr(settings)


def test_the_url_of_redis_may_lie_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    secret = tmp_path / "redis_url"
    secret.write_text("redis://:password@redis:6379/0\n")
    monkeypatch.setenv("REDIS_URL_FILE", str(secret))
    settings = Settings()
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://:password@redis:6379/0"
    assert "password" not in repr(settings)


@pytest.mark.parametrize(("content", "fault"), [(None, "cannot be read"), ("\n", "is empty")])
def test_a_file_that_holds_no_url_of_redis_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, fault: str
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    secret = tmp_path / "redis_url"
    if content is not None:
        secret.write_text(content)
    monkeypatch.setenv("REDIS_URL_FILE", str(secret))
    with pytest.raises(InputError, match=fault):
        Settings()


def test_a_value_out_of_bounds_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSR_TIMEOUT_SECONDS", "-1")
    with pytest.raises(ValidationError, match="timeout_seconds"):
        Settings()


@pytest.mark.parametrize("name", ["MSR_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_traces_are_off_until_a_collector_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert Settings().otlp_endpoint is None
    monkeypatch.setenv(name, "http://collector:4318")
    assert Settings().otlp_endpoint == "http://collector:4318"


def test_a_worker_listens_nowhere_until_it_is_given_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Settings().worker_port, Settings().worker_host) == (None, "127.0.0.1")
    monkeypatch.setenv("MSR_WORKER_PORT", "70000")
    with pytest.raises(ValidationError, match="worker_port"):
        Settings()


def test_preferences_are_written_greedily_unless_a_temperature_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Settings().sampling is None

    monkeypatch.setenv("MSR_PREFERENCE_TEMPERATURE", "0.6")
    monkeypatch.setenv("MSR_PREFERENCE_TOP_P", "0.9")
    assert Settings().sampling == Sampling(temperature=0.6, top_p=0.9)


def test_a_top_p_without_a_temperature_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MSR_PREFERENCE_TOP_P", "0.9")

    with pytest.raises(InputError, match=r"MSR_PREFERENCE_TOP_P .* MSR_PREFERENCE_TEMPERATURE"):
        _ = Settings().sampling
