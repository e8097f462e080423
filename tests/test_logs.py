"""How events are shown."""

import pytest

from services.logs import renderer


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
