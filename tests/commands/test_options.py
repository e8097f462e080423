"""Options that typer does not have by itself."""

import subprocess
import sys

import pytest

from services.commands.options import with_values


@pytest.mark.parametrize(
    ("given", "filled"),
    [
        (["evaluate", "--ray"], ["evaluate", "--ray", ""]),
        (["evaluate", "--ray", "--json"], ["evaluate", "--ray", "", "--json"]),
        (["evaluate", "--ray", "head:6379"], ["evaluate", "--ray", "head:6379"]),
        (["evaluate", "--ray=head:6379"], ["evaluate", "--ray=head:6379"]),
        ([], []),
    ],
)
def test_ray_takes_an_address_or_none(given: list[str], filled: list[str]):
    assert with_values(given) == filled


@pytest.mark.parametrize(
    "command",
    [
        ["summarize-images"],
        ["build-preferences", "--engine", "vllm-in-process"],
        ["train"],
        ["merge-adapter", "--adapter", "a", "--out", "o"],
        ["serve-model"],
    ],
    ids=lambda command: command[0],
)
def test_a_model_folder_that_is_not_there_is_said_before_torch_is_loaded(command: list[str]):
    program = (
        "import sys, services.cli as cli, services.core.errors as errors\n"
        "try: cli.app(sys.argv[1:])\n"
        "except errors.ModelUnusable as error: print(error, 'torch' in sys.modules)"
    )

    arguments = [*command, "--model", "./not-there"]
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )

    assert ended.stdout == (
        "there is no folder ./not-there; name a checkpoint folder, or a hub name with its owner "
        "False\n"
    ), ended.stderr[-2000:]
