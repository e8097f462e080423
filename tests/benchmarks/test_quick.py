"""Every benchmark in its quick form, as a user types it: it ends well and prints its figures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.support import runner

ROOT = Path(__file__).parents[2]
# On a slow and busy machine the slowest takes minutes.
TIMEOUT_SECONDS = 540


@pytest.mark.bench
@pytest.mark.parametrize("name", runner.names())
def test_the_quick_form_ends_with_one_json_object(name: str):
    command = [sys.executable, "-m", "services.cli", "bench", name, "--quick", "--json"]

    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS
    )

    assert ended.returncode == 0, ended.stderr[-4000:]
    [line] = ended.stdout.splitlines()
    assert any(has_figure(value) for value in json.loads(line).values())


def has_figure(value: object) -> bool:
    """Whether a value of the object is a number, or holds one."""
    if isinstance(value, dict):
        return any(has_figure(each) for each in value.values())
    if isinstance(value, list):
        return any(has_figure(each) for each in value)
    return isinstance(value, int | float) and not isinstance(value, bool)
