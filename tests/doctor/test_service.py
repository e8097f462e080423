"""Settings, Redis, clock and model servers: a real Redis and real HTTP servers are asked."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from benchmarks.families.writers import write_writer
from benchmarks.faults.supervised_process import free_port
from services.core.errors import InputError, ModelUnusable
from services.deployment.assemble import DEMO_WEIGHTS, EngineChoice, choose_engine
from services.deployment.settings import Settings
from services.doctor.findings import Finding, run_checks
from services.doctor.service import (
    check_model_servers,
    check_redis,
    check_settings,
    check_writer,
    identify_served,
    judge_clock,
    judge_redis,
)
from services.engines.checkpoints import identify
from services.engines.contract import EngineIdentity
from services.engines.weight_labels import labels
from services.state.embedded_redis.server import EmbeddedRedis
from services.state.server_info import Server
from tests.doctor.json_server import json_server

HEALTHY = Server(
    version="7.2.4",
    time_ms=0.0,
    used_bytes=2**20,
    max_bytes=2**30,
    eviction="noeviction",
    num_clients=1,
    appends=True,
    writes_to_disk=True,
    is_primary=True,
    in_cluster=False,
)


def statuses(findings: list[Finding]) -> list[str]:
    return [finding.status for finding in findings if finding.status != "ok"]


# --- settings ------------------------------------------------------------------------------------


def test_a_setting_that_cannot_be_used_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MSR_NUM_SCORED", "hunter2")
    with pytest.raises(ValidationError) as failure:
        Settings()

    found = list(check_settings({"MSR_NUM_SCORED": "hunter2"}, (), failure.value))

    assert statuses(found) == ["problem"]
    assert "MSR_NUM_SCORED" in found[0].found
    assert "hunter2" not in found[0].found + found[0].remedy


def test_settings_that_end_in_an_error_of_ours_are_a_problem():
    found = list(check_settings({}, (), InputError("the file of a setting is gone; name one")))

    assert statuses(found) == ["problem"]


def test_a_variable_that_nobody_reads_is_a_note_with_the_one_that_was_meant():
    found = list(check_settings({"MSR_VLLM_URL": "http://a"}, {"MSR_DATA"}, None))

    assert statuses(found) == ["note"]
    assert found[0].remedy == "Did you mean MSR_VLLM_URLS?"


def test_variables_that_are_settings_or_options_are_fine():
    known = {"MSR_DATA": "d", "MSR_NUM_SCORED": "5", "REDIS_URL": "redis://x", "PATH": "/bin"}

    assert statuses(list(check_settings(known, {"MSR_DATA"}, None))) == []


# --- Redis ---------------------------------------------------------------------------------------


def test_a_redis_that_answers_is_judged_with_its_clock(redis_url: str, tmp_path: Path):
    found = list(check_redis(str(tmp_path), Settings(redis_url=SecretStr(redis_url))))

    assert statuses(found) == []
    assert [finding.check for finding in found][-1] == "clock"


def test_a_redis_that_is_away_is_a_problem_that_keeps_the_password_secret(tmp_path: Path):
    url = SecretStr(f"redis://user:hunter2@127.0.0.1:{free_port()}/0")
    look = partial(check_redis, str(tmp_path), Settings(redis_url=url))

    (found,) = run_checks({"redis": look}, timeout_seconds=60)

    assert (found.status, "REDIS_URL" in found.remedy) == ("problem", True)
    assert "hunter2" not in found.found


def test_without_redis_url_the_embedded_one_is_reported_and_no_folder_is_made(tmp_path: Path):
    found = list(check_redis(str(tmp_path / "data"), Settings(redis_url=None)))

    assert statuses(found) == ["note"]
    assert not (tmp_path / "data").exists()


def test_an_embedded_redis_that_has_a_state_is_asked(tmp_path: Path):
    with_state = EmbeddedRedis(tmp_path / "state")
    with_state.start()
    try:
        found = list(check_redis(str(tmp_path), Settings(redis_url=None)))
    finally:
        with_state.stop()

    assert statuses(found) == ["note"]
    assert "every write goes to its append-only file." in [finding.found for finding in found]


@pytest.mark.parametrize(
    ("changes", "status", "word"),
    [
        ({"version": "6.0.16"}, "problem", "6.2"),
        ({"eviction": "allkeys-lru"}, "problem", "noeviction"),
        ({"appends": False}, "note", "appendonly"),
        ({"writes_to_disk": False}, "problem", "log"),
        ({"used_bytes": 2**30 - 1}, "problem", "maxmemory"),
        ({"is_primary": False}, "problem", "primary"),
        ({"in_cluster": True}, "problem", "REDIS_URL"),
        ({"max_bytes": 0, "eviction": "allkeys-lru"}, None, ""),
    ],
)
def test_what_a_redis_lacks_is_named_with_what_to_do(
    changes: Mapping[str, Any], status: str | None, word: str
):
    found = list(judge_redis(replace(HEALTHY, **changes)))

    assert statuses(found) == ([status] if status else [])
    assert any(word in finding.remedy for finding in found)


@pytest.mark.parametrize(
    ("skew_seconds", "status"),
    [(0.5, "ok"), (-1.9, "ok"), (5.0, "note"), (-5.0, "note"), (3600.0, "problem")],
)
def test_a_clock_may_differ_by_a_second_or_two(skew_seconds: float, status: str):
    assert judge_clock(skew_seconds).status == status


# --- model servers -------------------------------------------------------------------------------


def a_listing(**changes: str) -> dict[str, Any]:
    """What `msr serve-model` with the demo model and its adapter says of itself."""
    base = identify(str(DEMO_WEIGHTS / "base"))
    adapted = identify(str(DEMO_WEIGHTS / "base"), str(DEMO_WEIGHTS / "adapter"))
    text = labels(base, {"demo": replace(adapted, **changes)})
    served = [
        {"id": "base", "root": "base", "parent": None, "max_model_len": 4096},
        {"id": "demo", "root": "demo", "parent": "base", "max_model_len": 4096},
    ]
    named = [{"id": label, "root": "", "max_model_len": 4096} for label in text]
    return {"data": served + named}


def look(*urls: str, data: str = "no-such-folder", **options: Any) -> list[Finding]:
    settings = Settings(vllm_urls=urls)
    given = {"kind": "vllm", "model": None, "adapter": None} | options
    choose = partial(choose_engine, data, settings, **given)
    check = partial(check_model_servers, data, choose)
    return list(run_checks({"model server": check}, timeout_seconds=60))


def test_a_server_that_serves_our_model_and_adapter_is_fine():
    with json_server({"/v1/models": a_listing()}) as url:
        (found,) = look(url)

    assert found.status == "ok"
    assert "serves base with adapter demo" in found.found


def test_a_server_that_is_away_is_a_problem_beside_one_that_answers():
    away = f"http://me:hunter2@127.0.0.1:{free_port()}"
    with json_server({"/v1/models": a_listing()}) as url:
        found = look(away, url)

    assert [finding.status for finding in found] == ["problem", "ok"]
    assert "hunter2" not in found[0].found


def test_a_server_of_something_else_is_a_problem():
    with json_server({"/v1/models": {"models": []}}) as url:
        (found,) = look(url)

    assert (found.status, "vLLM" in found.found) == ("problem", True)


def test_an_adapter_that_the_server_has_not_is_a_problem_that_names_those_it_has():
    with json_server({"/v1/models": a_listing()}) as url:
        (found,) = look(url, adapter="spring")

    assert (found.status, "['demo']" in found.found) == ("problem", True)


def test_servers_of_different_weights_are_a_problem():
    with (
        json_server({"/v1/models": a_listing()}) as one,
        json_server({"/v1/models": a_listing(adapter="another")}) as other,
    ):
        found = look(one, other)

    assert statuses(found) == ["problem"]
    assert "same weights" in found[-1].found


@pytest.mark.parametrize(
    ("shipped", "expected"), [("adapter", ["ok"]), ("adapter-sft", ["ok", "note"])]
)
def test_an_adapter_other_than_that_of_the_data_folder_is_a_note(
    shipped: str, expected: list[str], tmp_path: Path
):
    copytree(DEMO_WEIGHTS / shipped, tmp_path / "adapter")
    with json_server({"/v1/models": a_listing()}) as url:
        found = look(url, data=str(tmp_path))

    assert [finding.status for finding in found] == expected


def test_a_server_without_an_adapter_is_a_note():
    base = labels(EngineIdentity("0123", ""), {})
    entries = [{"id": name, "root": name, "max_model_len": 4096} for name in ("base", *base)]
    with json_server({"/v1/models": {"data": entries}}) as url:
        (found,) = look(url)

    assert found.status == "note"


def test_servers_that_nobody_would_ask_are_a_note():
    (found,) = look("http://a", kind="local")

    assert (found.status, "--engine vllm" in found.remedy) == ("note", True)


def test_vllm_without_a_server_and_a_recommender_without_vllm_are_problems():
    assert [finding.status for finding in look()] == ["problem"]
    settings = Settings(recommender_urls=("http://a",))

    def choose() -> EngineChoice:
        return choose_engine("data", settings, kind="local", model=None, adapter=None)

    check = partial(check_model_servers, "data", choose)
    (found,) = run_checks({"model server": check}, timeout_seconds=60)
    assert (found.status, "MSR_RECOMMENDER_URLS" in found.found) == ("problem", True)


# --- a writer of its own -------------------------------------------------------------------------


def look_at_writer(**given: Any) -> list[Finding]:
    choose = partial(
        choose_engine, "data", Settings(**given), kind="local", model=None, adapter=None
    )
    check = partial(check_writer, choose)
    return list(run_checks({"writer": check}, timeout_seconds=60))


def test_without_a_writer_of_its_own_nothing_is_said():
    assert look_at_writer() == []


def test_a_writer_in_this_process_is_named(tmp_path: Path):
    folder = write_writer("qwen-3-thinking", tmp_path / "my-writer")

    [found] = look_at_writer(writer=str(folder))

    assert (found.status, found.found) == (
        "ok",
        "my-writer writes the preferences, in this process.",
    )


def test_a_writer_without_a_chat_template_is_a_problem(tmp_path: Path):
    folder = write_writer("qwen-3-thinking", tmp_path / "my-writer")
    (folder / "chat_template.jinja").unlink()

    [found] = look_at_writer(writer=str(folder))

    assert found.status == "problem"
    assert "has no chat template" in found.found


def test_a_writer_that_is_not_there_is_a_problem(tmp_path: Path):
    [found] = look_at_writer(writer=str(tmp_path / "no-such-writer"))

    assert found.status == "problem"
    assert "no-such-writer" in found.found


def test_servers_of_a_writer_are_asked_what_they_serve():
    away = f"http://127.0.0.1:{free_port()}"
    with json_server({"/v1/models": a_listing()}) as url:
        found = look_at_writer(writer_urls=(url, away))

    assert [finding.status for finding in found] == ["ok", "problem"]
    assert f"{url} serves base to write the preferences" in found[0].found
    assert away in found[1].found


def test_a_text_only_model_for_everything_is_refused_as_step_2_refuses_it(
    tmp_path: Path,
):
    folder = str(write_writer("qwen-3-thinking", tmp_path / "my-writer"))
    choose = partial(choose_engine, "data", Settings(), kind="local", model=folder, adapter=None)

    with pytest.raises(ModelUnusable, match=r"takes no images.*name it in MSR_WRITER"):
        identify_served(choose)


def test_a_remedy_that_is_a_question_ends_as_one():
    [found] = look(f"http://127.0.0.1:{free_port()}")

    assert found.remedy == "Is the vLLM server running?"
