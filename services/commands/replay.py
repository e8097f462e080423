"""`msr openapi` and `msr replay`: the API's description, and a recording to send to it."""

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
        bool, typer.Option("--without-keys", help="Describe an API that requires no keys.")
    ] = False,
) -> None:
    """Print the OpenAPI document of a server that requires API keys."""
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
        float, typer.Option(metavar="SHARE", help="Share of requests that ask for recommendations.")
    ] = 0.0,
    offset: Annotated[
        int, typer.Option(min=0, help="Start here: the `next_offset` of an earlier run.")
    ] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Send this many. Default: all.")] = None,
    now: Annotated[
        bool, typer.Option("--now", help="Send no timestamps: the interactions happen now.")
    ] = False,
    prefix: Annotated[str, typer.Option(help="Prefix of each user id.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Send a file's interactions to a running API, oldest first, at a rate; Ctrl-C stops."""
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
