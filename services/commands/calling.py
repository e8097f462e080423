"""For those who call the API: the document that describes it."""

import json
from typing import Annotated

import typer


def openapi(
    without_keys: Annotated[
        bool, typer.Option("--without-keys", help="Of an API that asks nobody for a key.")
    ] = False,
) -> None:
    """Print the OpenAPI document, as a server that asks for API keys gives it."""
    from services.api.access import AccessRules
    from services.api.main import describe

    document = describe(AccessRules(require_keys=not without_keys))
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
