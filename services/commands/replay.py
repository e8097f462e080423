"""For those who call the API: the document that describes it, and interactions to try it with."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from services.commands.options import HERE, ApiKeyOption, ApiUrl, AsJson
from services.commands.reporting import report
from services.process.signals import set_by_signals


def openapi(
    without_keys: Annotated[
        bool, typer.Option("--without-keys", help="Of an API that asks nobody for a key.")
    ] = False,
) -> None:
    """Print the OpenAPI document, as a server that asks for API keys gives it."""
    from services.api.http.auth import AccessRules
    from services.api.main import describe

    document = describe(AccessRules(require_keys=not without_keys))
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def replay(
    file: Annotated[
        Path,
        typer.Argument(help="CSV (user_id, item_id, timestamp_ms), or MicroLens *_pairs.csv|tsv."),
    ],
    url: ApiUrl = HERE,
    key: ApiKeyOption = None,
    rate: Annotated[float, typer.Option(help="Interactions a second.")] = 100.0,
    batch: Annotated[int, typer.Option(help="Interactions a request.")] = 1,
    recommend: Annotated[
        float, typer.Option(metavar="SHARE", help="Of all requests, how many ask for a ranking.")
    ] = 0.0,
    offset: Annotated[
        int, typer.Option(min=0, help="Begin here: the `next_offset` of a run before.")
    ] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Send so many, not all.")] = None,
    now: Annotated[
        bool, typer.Option("--now", help="Leave the times out: new interactions, as of now.")
    ] = False,
    prefix: Annotated[str, typer.Option(help="Stands before each user id.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Send the interactions of a file to a running API, oldest first, at a rate; Ctrl-C ends it."""
    from clients.replay.reading import read_recording
    from clients.replay.replaying import Plan, open_client
    from clients.replay.replaying import replay as work

    plan = Plan(
        rate=rate,
        batch_size=batch,
        recommend_share=recommend,
        offset=offset,
        limit=limit,
        now=now,
    )

    async def send() -> dict[str, Any]:
        recording = read_recording(file, prefix=prefix)
        async with open_client(url, api_key=key, timeout_seconds=timeout) as client:
            stop = asyncio.Event()
            with set_by_signals(stop):
                figures = await work(recording.rows, client, plan, stop=stop)
        return {**figures, "skipped_rows": recording.num_skipped}

    report(send, as_json, timed=False)
