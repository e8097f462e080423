"""`msr adapters`: lists and activates the adapters of a running API, through its HTTP API."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from services.commands.options import HERE, ApiKeyOption, ApiUrl, AsJson

_FOREIGN = (
    "validated and calibrated on another catalogue, or on preferences of another model: measure it "
    "here with `msr evaluate`"
)

adapters = typer.Typer(
    help="Choose the adapter with which a running API scores; a key needs the scope admin.",
    no_args_is_help=True,
)


@adapters.command("list")
def list_adapters(url: ApiUrl = HERE, key: ApiKeyOption = None, as_json: AsJson = False) -> None:
    """List all adapters and their roles."""
    _tell(url, key, lambda client: client.adapters(), as_json)


@adapters.command("activate")
def activate_adapter(
    name: Annotated[str, typer.Argument(help="The adapter's name, as `list` shows it.")],
    url: ApiUrl = HERE,
    key: ApiKeyOption = None,
    as_json: AsJson = False,
) -> None:
    """Score with this adapter: the called process at once, every other within seconds."""
    _tell(url, key, lambda client: client.activate_adapter(name), as_json)


@adapters.command("rollback")
def roll_back_adapter(
    url: ApiUrl = HERE, key: ApiKeyOption = None, as_json: AsJson = False
) -> None:
    """Score with the previous adapter again."""
    _tell(url, key, lambda client: client.roll_back_adapter(), as_json)


def _tell(url: str, key: str | None, ask: Callable[[Any], Any], as_json: bool) -> None:
    """Call the API and print its answer; a ClientError gives one line and exit status 1."""
    from clients.python import ClientError, MsrClient

    try:
        # Loading a large adapter takes a while.
        with MsrClient(url, api_key=key, timeout_seconds=300.0) as client:
            answer = ask(client)
    except (ClientError, ValueError) as error:
        typer.echo(f"msr: {error}", err=True)
        raise typer.Exit(1) from error
    if as_json:
        typer.echo(answer.model_dump_json())
        return
    for each in answer.adapters:
        what = ", ".join(each.roles) or ("" if each.servable else "not servable")
        typer.echo(f"{each.name:<24} {each.stage or '':<5} {each.ranked_by:<12} {what}")
        foreign = _FOREIGN if each.validation_is_foreign else None
        for text in (each.reason, each.note, foreign):
            if text:
                typer.echo(f"{'':<24} {text}")
    if answer.problem:
        typer.echo(f"not served by this process: {answer.problem}", err=True)
