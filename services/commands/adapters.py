"""Adapters by command: what a running API has, and which one scores. It goes through the HTTP API,
so that the same rules hold as for everybody.
"""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from services.commands.options import HERE, ApiKeyOption, ApiUrl, AsJson

adapters = typer.Typer(
    help="Which adapter a running API scores by; a key needs the scope admin.",
    no_args_is_help=True,
)


@adapters.command("list")
def list_adapters(url: ApiUrl = HERE, key: ApiKeyOption = None, as_json: AsJson = False) -> None:
    """Show all adapters and what they do now."""
    _tell(url, key, lambda client: client.adapters(), as_json)


@adapters.command("activate")
def activate_adapter(
    name: Annotated[str, typer.Argument(help="The adapter's name, as `list` shows it.")],
    url: ApiUrl = HERE,
    key: ApiKeyOption = None,
    as_json: AsJson = False,
) -> None:
    """Let an adapter score: here at once, in every process within seconds."""
    _tell(url, key, lambda client: client.activate_adapter(name), as_json)


@adapters.command("rollback")
def roll_back_adapter(
    url: ApiUrl = HERE, key: ApiKeyOption = None, as_json: AsJson = False
) -> None:
    """Let the previous adapter score again."""
    _tell(url, key, lambda client: client.roll_back_adapter(), as_json)


def _tell(url: str, key: str | None, ask: Callable[[Any], Any], as_json: bool) -> None:
    """What the API answers; a ClientError as one line and exit status 1."""
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
        for told in (each.reason, each.note):
            if told:
                typer.echo(f"{'':<24} {told}")
    if answer.problem:
        typer.echo(f"not served by this process: {answer.problem}", err=True)
