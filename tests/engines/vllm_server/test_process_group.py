"""Programs that tell why they ended, and whose children never outlive us."""

import subprocess
import sys

import pytest

from services.engines.vllm_server.process_group import ProcessGroup
from tests.processes import wait_until_gone

# Starts a child that would run for an hour, and prints its number.
LEAVES_A_CHILD = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]).pid, flush=True)
"""
STAYS_WITH_A_CHILD = LEAVES_A_CHILD + "import time; time.sleep(3600)"
# Runs that in a group, and goes on until killed.
OWNER = f"""
import asyncio, sys
from services.engines.vllm_server.process_group import ProcessGroup
async def main():
    group = await ProcessGroup.start([sys.executable, "-c", {STAYS_WITH_A_CHILD!r}], {{}})
    await group.wait()
asyncio.run(main())
"""


async def a_finished_group(program: str) -> tuple[int, str]:
    group = await ProcessGroup.start([sys.executable, "-c", program], {})
    status = await group.wait()
    await group.end()
    return status, group.failure_reason()


async def test_the_status_is_the_programs_own_or_tells_the_signal():
    assert (await a_finished_group("raise SystemExit(7)"))[0] == 7
    assert (await a_finished_group("import os; os.kill(os.getpid(), 9)"))[0] == 137


@pytest.mark.parametrize(
    "raised",
    [
        "ValueError: too little memory",
        "(EngineCore pid=12) ERROR 11-24 02:58:30 [core.py:9] ValueError: too little memory",
    ],
)
async def test_the_first_error_says_why_it_ended(raised: str):
    lines = ["WARNING: an OSError: may follow", raised, "RuntimeError: see above", "leaked 1 thing"]

    _, words = await a_finished_group(f"print(*{lines!r}, sep=chr(10))")

    assert words == "ValueError: too little memory"


async def test_an_error_that_goes_on_indented_is_reported_with_its_detail():
    program = "print('pkg.ValidationError: 1 error', '  it is too long', sep=chr(10))"

    assert (await a_finished_group(program))[1] == "pkg.ValidationError: 1 error it is too long"


async def test_without_an_error_its_last_line_is_reported():
    assert (await a_finished_group("print('first'); print('last')"))[1] == "last"
    assert (await a_finished_group(""))[1] == "it said nothing"


async def test_what_it_prints_goes_on_to_stderr(capsys: pytest.CaptureFixture[str]):
    await a_finished_group("import sys; print('out'); print('err', file=sys.stderr)")

    assert set(capsys.readouterr().err.split()) == {"out", "err"}


async def test_children_that_a_program_leaves_are_ended_with_it():
    status, child = await a_finished_group(LEAVES_A_CHILD)

    assert status == 0
    wait_until_gone([int(child)])


def test_when_we_are_killed_outright_the_whole_group_ends():
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stderr=subprocess.PIPE, text=True)
    assert owner.stderr is not None
    child = int(owner.stderr.readline())

    owner.kill()
    owner.wait()
    wait_until_gone([child])
