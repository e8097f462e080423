"""Options that typer does not have by itself."""

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
