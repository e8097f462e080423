"""`msr serve-model` as a process: it comes up warm, ends when told, and leaves nothing behind."""

import httpx
import pytest

from services.engines.checkpoints import fingerprint_checkpoint
from tests.processes import wait_until_gone
from tests.vllm.conftest import (
    ADAPTER,
    BASE,
    ModelServer,
    StartModelServer,
)

pytestmark = pytest.mark.vllm

# vLLM's inner processes are there when this is logged, and nobody can be answered yet.
LOADING = "(EngineCore pid="


def test_once_it_listens_every_model_has_answered(demo_server: ModelServer):
    served = httpx.get(f"{demo_server.url}/v1/models").json()["data"]

    names = {entry["id"] for entry in served}
    assert {"demo", "demo-adapter", f"msr:model:{fingerprint_checkpoint(BASE)}"} <= names
    assert f"msr:adapter:demo-adapter:{fingerprint_checkpoint(ADAPTER)}" in names
    assert demo_server.num_answered() >= 2


def test_the_command_that_it_runs_stands_at_the_head_of_its_log(demo_server: ModelServer):
    command = demo_server.first_line()

    assert "-m vllm.entrypoints.openai.api_server --model" in command
    assert f"--port {demo_server.url.rpartition(':')[2]} " in command


def test_a_signal_while_it_loads_it_ends_well_and_leaves_no_process(
    start_model_server: StartModelServer,
):
    server = start_model_server()
    server.wait_for_log(LOADING)
    below = server.below()

    assert server.stop() == 0
    wait_until_gone(below)
    assert len(below) >= 3  # vLLM's server, its engine, the guard


def test_killed_outright_it_leaves_no_process_either(start_model_server: StartModelServer):
    server = start_model_server()
    server.wait_for_log(LOADING)
    below = server.below()

    server.process.kill()
    wait_until_gone(below)
    assert len(below) >= 3


def test_a_vllm_that_does_not_come_up_is_reported_in_its_own_words(
    start_model_server: StartModelServer,
):
    server = start_model_server("--max-model-len", "100000")

    assert server.process.wait() == 1
    server.stop()
    last = server.log().splitlines()[-1]
    assert last.startswith("msr: vLLM ended with status 1")
    assert "max_model_len (100000)" in last


def test_a_port_that_is_taken_is_reported_before_the_model_loads(
    demo_server: ModelServer, start_model_server: StartModelServer
):
    server = start_model_server(port=demo_server.port)

    assert server.process.wait() == 1
    server.stop()
    assert "choose another with --host and --port" in server.log()
    assert LOADING not in server.log()
