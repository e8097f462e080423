"""The shell that the containers run, run here: secrets, and the command of the model server."""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from services.deployment.assemble import DEMO_WEIGHTS
from services.engines.vllm_server.command import ServeOptions, build_command
from tests.compose.composed import COMPOSE, ROOT, load

VLLM = load(COMPOSE)["services"]["vllm"]


def make_secrets(folder: Path) -> dict[str, str]:
    subprocess.run([ROOT / "docker" / "make-secrets", folder], check=True)
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_secrets_are_made_once_and_kept(tmp_path: Path):
    made = make_secrets(tmp_path / "secrets")

    assert made.keys() == load(COMPOSE)["secrets"].keys()
    assert made["redis_url"] == f"redis://:{made['redis_password']}@redis:6379/0"
    assert len({made["redis_password"], made["grafana_password"]}) == 2
    assert all(len(made[name]) == 48 for name in made if name.endswith("_password"))
    assert make_secrets(tmp_path / "secrets") == made


def test_containers_may_read_the_secrets_and_other_users_here_may_not(tmp_path: Path):
    make_secrets(tmp_path / "secrets")

    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    for file in (tmp_path / "secrets").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o444


def started(service: dict, folder: Path) -> list[str]:
    """What a service's shell would start as python3, with `folder` for its data."""
    stand_in = folder / "bin" / "python3"
    stand_in.parent.mkdir()
    stand_in.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    stand_in.chmod(0o755)
    given = service["environment"] | {"MSR_DATA": folder / "data"}
    environment = {name: str(value) for name, value in given.items()}
    ran = subprocess.run(
        [*service["entrypoint"], *service["command"]],
        env=environment | {"PATH": f"{stand_in.parent}:{os.environ['PATH']}"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return ran.stdout.splitlines()


def served_by_us(folder: Path, *adapters: tuple[str, str]) -> list[str]:
    """The arguments that `msr serve-model` gives vLLM, without what belongs to the demo weights."""
    options = ServeOptions(
        model=str(DEMO_WEIGHTS / "base"), adapters=adapters, host="0.0.0.0", port=8001
    )
    _, *arguments = build_command(options, "gpu").arguments
    told = [each for each in arguments if not each.startswith("msr:")]
    return [each.replace(str(DEMO_WEIGHTS / "base"), "/models/base") for each in told]


def test_the_model_server_gets_the_options_of_serve_model(tmp_path: Path):
    assert sorted(started(VLLM, tmp_path)) == sorted(served_by_us(tmp_path))


def test_an_adapter_is_served_as_soon_as_there_is_one(tmp_path: Path):
    adapter = tmp_path / "data" / "adapter"
    adapter.parent.mkdir()
    adapter.symlink_to(DEMO_WEIGHTS / "adapter")

    asked = started(VLLM, tmp_path)

    expected = served_by_us(tmp_path, ("adapter", str(adapter)))
    assert sorted(asked) == sorted(expected)
    assert json.loads(asked[asked.index("--lora-modules") + 1])["name"] == "adapter"


@pytest.mark.parametrize("name", ["make-secrets", "seed-volumes"])
def test_the_scripts_are_programs_that_a_plain_shell_takes(name: str):
    script = ROOT / "docker" / name

    assert os.access(script, os.X_OK)
    subprocess.run(["sh", "-n", script], check=True)
