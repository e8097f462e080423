"""The names of variables that `msr` reads from its environment: its settings and its options."""

from collections.abc import Iterator

import click
import typer

from services.cli import app
from services.deployment.settings import Settings

# Read where it is needed, before any setting or option.
_BESIDE = {"MSR_LOG_LEVEL", "REDIS_URL_FILE"}


def known_names() -> set[str]:
    fields = Settings.model_fields.items()
    own = {f"MSR_{name.upper()}" for name, field in fields if field.validation_alias is None}
    choices = (getattr(field.validation_alias, "choices", ()) for _, field in fields)
    aliases = {str(alias) for each in choices for alias in each}
    return own | aliases | set(_options(typer.main.get_command(app))) | _BESIDE


def _options(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        if isinstance(parameter.envvar, str):
            yield parameter.envvar
    for each in getattr(command, "commands", {}).values():
        yield from _options(each)
