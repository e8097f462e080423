"""How events are shown."""

import json
import subprocess
import sys

import pytest

from services.process.logs import renderer


def a_failure() -> ZeroDivisionError:
    def fail(secret: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        fail("s3cr" + "3t")
    return caught.value


@pytest.mark.parametrize("terminal", [True, False])
def test_an_error_is_shown_without_the_variables_of_its_frames(terminal: bool):
    event = {"event": "request_crashed", "exc_info": a_failure()}

    line = str(renderer(terminal=terminal)(None, "error", event))

    assert "ZeroDivisionError" in line
    assert "s3cr3t" not in line


def test_what_a_library_warns_of_is_a_json_line_too():
    program = (
        "import logging; from services.process.logs import configure; configure(); "
        "logging.getLogger('some.library').warning('disk %s', 'full'); "
        "logging.getLogger('some.library').info('not shown')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    (line,) = ended.stderr.splitlines()
    shown = json.loads(line)
    assert (shown["event"], shown["level"]) == ("disk full", "warning")
    assert shown["logger"] == "some.library"
