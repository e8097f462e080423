"""The CPU stack, really run: `make test-docker`."""

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from model_training.demo.personas import NUM_PERSONAS
from services.core.wire.interactions import InteractionIn
from services.core.wire.recommend import RecommendResponse
from tests.compose.composed import ROOT
from tests.compose.stack import Stack
from tests.processes import PATIENCE_SECONDS

pytestmark = pytest.mark.docker

USER = "user-00000"


@pytest.fixture(scope="module")
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Built and healthy, on empty volumes."""
    secrets = tmp_path_factory.mktemp("stack") / "secrets"
    subprocess.run([ROOT / "docker" / "make-secrets", secrets], check=True)
    stack = Stack(secrets)
    started = time.monotonic()
    stack.compose("build", "api")
    print(f"\nbuilt in {time.monotonic() - started:.0f} s")
    try:
        print(f"from built images to healthy: {stack.up():.1f} s")
        yield stack
    finally:
        if request.session.testsfailed:
            print(stack.compose("ps", "--all"), stack.compose("logs", "--tail", "60"), sep="\n")
        stack.compose("down", "--volumes", "--remove-orphans", "--timeout", "30")


def ranking(stack: Stack) -> RecommendResponse:
    with stack.client() as client:
        return client.recommend(USER, k=5, timeout_seconds=60)


def assert_the_model_answers(stack: Stack) -> None:
    found = ranking(stack)
    assert not found.degraded, found.reason
    assert [item.scored_by for item in found.items] == ["mllm"] * 5
    assert all(0 < item.probability < 1 for item in found.items)


def test_it_comes_up_healthy_with_the_demo_and_ranks_by_the_model(stack: Stack):
    assert_the_model_answers(stack)
    with stack.client() as client:
        assert len(client.personas().personas) == NUM_PERSONAS


@pytest.mark.parametrize("service", ["api", "worker", "redis"])
def test_programs_run_without_rights_and_write_to_no_file_of_the_image(stack: Stack, service: str):
    told = stack.compose("exec", "-T", service, "sh", "-c",
                         "id -u; grep CapEff /proc/self/status; ! touch /etc/x 2>&1")  # fmt: skip

    uid, capabilities, refused = told.splitlines()
    assert uid != "0"
    assert int(capabilities.split()[1], 16) == 0
    assert "Read-only file system" in refused


def test_redis_wants_its_password_which_no_inspection_shows(stack: Stack):
    assert "NOAUTH" in stack.compose("exec", "-T", "redis", "redis-cli", "ping")
    password = stack.compose("exec", "-T", "redis", "cat", "/run/secrets/redis_password")
    for service in ("redis", "api", "worker"):
        assert password not in stack.inspect(service, "{{json .}}")


def test_redis_is_not_published(stack: Stack):
    assert json.loads(stack.inspect("redis", "{{json .HostConfig.PortBindings}}")) in ({}, None)


@pytest.mark.parametrize("service", ["worker", "api", "redis"])
def test_what_is_killed_comes_back_with_up_and_the_model_answers(stack: Stack, service: str):
    stack.compose("kill", service)
    print(f"\n{service} killed, healthy again after up: {stack.up():.1f} s")

    assert_the_model_answers(stack)


@pytest.mark.parametrize("service", ["worker", "api"])
def test_a_program_that_dies_is_started_again_by_itself(stack: Stack, service: str):
    before = int(stack.inspect(service, "{{.RestartCount}}"))
    stack.compose("exec", "-T", service, "sh", "-c", "kill -KILL $(cat /proc/1/task/1/children)")

    give_up = time.monotonic() + PATIENCE_SECONDS
    while int(stack.inspect(service, "{{.RestartCount}}")) == before:
        assert time.monotonic() < give_up
        time.sleep(0.1)
    stack.compose("up", "--detach", "--wait", "--no-recreate")
    assert_the_model_answers(stack)


def test_a_user_is_the_same_after_down_and_up(stack: Stack):
    taken = [
        InteractionIn(user_id="guest", item_id=f"item-{n:05d}", event_id=f"e{n}") for n in range(3)
    ]
    with stack.client() as client:
        version = client.interact(*taken).versions["guest"]
        before = client.wait_for_version("guest", version, timeout_seconds=PATIENCE_SECONDS)

    stack.compose("down")
    print(f"\nhealthy again after down: {stack.up():.1f} s")

    with stack.client() as client:
        assert client.preference("guest") == before
        assert client.interact(*taken).duplicates == 3
    assert_the_model_answers(stack)


def test_the_offline_steps_run_as_one_shots(stack: Stack):
    told = stack.compose("run", "--rm", "-T", "batch", "summarize-images", "--json")

    assert json.loads(told.splitlines()[-1])["summaries"] > 0
    assert "0 key(s)" in stack.compose("run", "--rm", "-T", "batch", "keys", "list")
