"""What a deployment fills in: model and adapter that were not named, and where state lies."""

from pathlib import Path

import pytest
import structlog

from services.core.errors import InputError
from services.deployment.assemble import (
    DEMO_WEIGHTS,
    EngineChoice,
    choose_engine,
    open_store,
    warn_if_exposed,
)
from services.deployment.settings import Settings
from services.engines.contract import AS_SERVED


def chosen(data: Path, **given: str | None):
    options = {"kind": "local", "model": None, "adapter": None} | given
    return choose_engine(str(data), Settings(), **options)


def test_the_demo_model_answers_with_its_own_adapter_when_nothing_is_named(tmp_path: Path):
    choice = chosen(tmp_path)

    assert choice.model == str(DEMO_WEIGHTS / "base")
    assert choice.adapter == str(DEMO_WEIGHTS / "adapter")


def test_an_adapter_trained_in_the_data_folder_comes_before_the_demo_adapter(tmp_path: Path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/manifest.json").touch()

    assert chosen(tmp_path).adapter == str(tmp_path / "adapter")


@pytest.mark.parametrize("given", [{"model": "other/model"}, {"adapter": "none"}])
def test_another_model_or_none_gets_no_adapter_of_the_demo(tmp_path: Path, given: dict[str, str]):
    assert chosen(tmp_path, **given).adapter is None


def test_a_merged_checkpoint_gets_no_adapter(tmp_path: Path):
    (tmp_path / "adapter").mkdir()
    merged = tmp_path / "merged"
    merged.mkdir()
    for manifest in (tmp_path / "adapter", merged):
        (manifest / "manifest.json").touch()
    (merged / "config.json").touch()

    assert chosen(tmp_path, model=str(merged)).adapter is None


async def test_without_an_url_the_state_lies_in_the_data_folder_and_is_found_again(tmp_path: Path):
    settings = Settings().model_copy(update={"redis_url": None})
    async with open_store(str(tmp_path), settings) as store:
        await store.save_published("mark")

    async with open_store(str(tmp_path), settings) as store:
        assert await store.load_published() == "mark"
    assert (tmp_path / "state").is_dir()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "msr.example"])
def test_a_host_that_others_reach_is_warned_of_once(host: str):
    with structlog.testing.capture_logs() as logs:
        warn_if_exposed(host)

    [event] = logs
    assert (event["log_level"], event["host"]) == ("warning", host)
    assert "MSR_REQUIRE_KEYS" in event["remedy"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_a_host_that_only_this_machine_reaches_is_not_warned_of(host: str):
    with structlog.testing.capture_logs() as logs:
        warn_if_exposed(host)

    assert logs == []


def writing(data: Path, *, kind: str = "local", **settings: object) -> EngineChoice:
    given = Settings().model_copy(update=settings)
    choice = choose_engine(str(data), given, kind=kind, model=None, adapter=None)
    return choice.for_preferences()


def test_without_a_writer_of_its_own_one_engine_does_all(tmp_path: Path):
    choice = chosen(tmp_path)

    assert choice.for_preferences() is choice


def test_a_writer_in_this_process_is_a_checkpoint_that_only_writes(tmp_path: Path):
    writer = writing(tmp_path, writer="some/writer")

    assert (writer.kind, writer.model, writer.adapter) == ("local", "some/writer", None)
    assert writer.texts_only


@pytest.mark.parametrize("kind", ["local", "vllm"])
def test_a_writer_on_servers_is_what_they_serve_whatever_the_engine(tmp_path: Path, kind: str):
    writer = writing(tmp_path, kind=kind, vllm_urls=("http://a",), writer_urls=("http://w",))

    assert (writer.kind, writer.model) == ("vllm", AS_SERVED)
    assert writer.settings.vllm_urls == ("http://w",)
    assert writer.settings.recommender_urls == ()


def test_a_writer_without_servers_beside_models_on_servers_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="MSR_WRITER_URLS"):
        writing(tmp_path, kind="vllm", vllm_urls=("http://a",), writer="some/writer")
