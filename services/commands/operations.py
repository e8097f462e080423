"""`msr dead-letters` and `msr export-user`: an operator's work on the online state."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from services.commands.options import AsJson, Data, settings
from services.commands.reporting import report

dead_letters = typer.Typer(
    help="Updates that failed too often: list, retry or drop them.",
    no_args_is_help=True,
)

Users = Annotated[list[str] | None, typer.Option("--user", help="Only this user's; repeatable.")]


@dead_letters.command("list")
def list_dead_letters(data: Data = "data", user: Users = None, as_json: AsJson = False) -> None:
    """List the failed updates: user, time and reason; oldest first within a partition."""

    async def work(work_queue: Any, letters: list[Any]) -> list[Any]:
        return letters

    letters = asyncio.run(_with_letters(data, user, work))
    if as_json:
        typer.echo(json.dumps({"dead_letters": [asdict(each) for each in letters]}))
        return
    for each in letters:
        failed = datetime.fromtimestamp(each.failed_ms / 1000, UTC).isoformat(timespec="seconds")
        typer.echo(f"{failed}  {each.user_id}  version {each.version}  {each.reason}")
    typer.echo(f"{len(letters)} dead letter(s)")


@dead_letters.command("retry")
def retry_dead_letters(data: Data = "data", user: Users = None, as_json: AsJson = False) -> None:
    """Queue the updates again, with the full number of tries; a worker must run."""

    async def work(work_queue: Any, letters: list[Any]) -> dict[str, int]:
        return {"retried": await work_queue.retry_dead_letters(letters)}

    report(lambda: _with_letters(data, user, work), as_json)


@dead_letters.command("drop")
def drop_dead_letters(data: Data = "data", user: Users = None, as_json: AsJson = False) -> None:
    """Drop the updates. Histories stay: a user's next interaction updates with all of them."""

    async def work(work_queue: Any, letters: list[Any]) -> dict[str, int]:
        return {"dropped": await work_queue.drop_dead_letters(letters)}

    report(lambda: _with_letters(data, user, work), as_json)


def export_user(
    user_id: Annotated[str, typer.Argument(help="The user's id.")], data: Data = "data"
) -> None:
    """Print everything that is stored about one user, as JSON."""
    from services.core.records import UserId
    from services.deployment.assemble import open_store
    from services.state import user_export

    async def work() -> dict[str, Any]:
        async with open_store(data, settings()) as store:
            return await user_export.export_user(store, UserId(user_id))

    typer.echo(json.dumps(asyncio.run(work()), indent=2, ensure_ascii=False))


async def _with_letters(
    data: str, users: list[str] | None, work: Callable[[Any, list[Any]], Awaitable[Any]]
) -> Any:
    """Call `work` with the dead letters of these users, or of all, and return its result."""
    from services.deployment.assemble import open_store
    from services.state.work_queue import WorkQueue

    async with open_store(data, settings()) as store:
        work_queue = WorkQueue(store, consumer="operator")
        letters = await work_queue.dead_letters()
        return await work(
            work_queue, [each for each in letters if not users or each.user_id in users]
        )
