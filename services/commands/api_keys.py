"""`msr keys`: creates, lists and revokes API keys; running servers follow within seconds."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from services.commands.options import AsJson, Data, settings
from services.commands.reporting import report
from services.core.api_keys import ApiKey, Scope, issue
from services.core.errors import InputError

keys = typer.Typer(help="API keys, for servers with MSR_REQUIRE_KEYS.", no_args_is_help=True)

_DAY_MS = 24 * 3600 * 1000


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="A name that says whose key it is.")],
    scope: Annotated[list[Scope], typer.Option(help="What it may do; repeatable.")],
    expires_days: Annotated[
        float | None, typer.Option(max=36_500, help="Days until it expires. Default: never.")
    ] = None,
    rate: Annotated[
        float,
        typer.Option(min=0, help="Requests a second (100 interactions count as one); 0: no limit."),
    ] = 0.0,
    burst: Annotated[
        int | None, typer.Option(min=1, help="Requests at once. Default: those of one second.")
    ] = None,
    data: Data = "data",
    as_json: AsJson = False,
) -> None:
    """Create a key and print it. It cannot be printed again: only a digest is kept."""
    now_ms = _now_ms()
    key, token = issue(
        name,
        scope,
        now_ms=now_ms,
        expires_ms=_expiry(now_ms, expires_days),
        rate_per_second=rate,
        burst=burst,
    )

    asyncio.run(_with_keys(data, lambda keys: keys.add(key)))
    if as_json:
        typer.echo(json.dumps({**_facts(key), "key": token}))
        return
    # Only the key goes to stdout, so that a script can read it.
    typer.echo(f"{_line(key)}\nThis is the key; it is not shown again:", err=True)
    typer.echo(token)


@keys.command("list")
def list_keys(data: Data = "data", as_json: AsJson = False) -> None:
    """List all keys, oldest first, without their secrets."""
    found = asyncio.run(_with_keys(data, lambda keys: keys.load_all()))
    if as_json:
        typer.echo(json.dumps({"keys": [_facts(key) for key in found]}))
        return
    for key in found:
        typer.echo(_line(key))
    typer.echo(f"{len(found)} key(s)")


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `msr keys list` shows it.")],
    data: Data = "data",
    as_json: AsJson = False,
) -> None:
    """Revoke a key; running servers reject it within seconds (MSR_KEY_CACHE_SECONDS)."""

    async def work(keys: Any) -> dict[str, int]:
        if not await keys.revoke(key_id):
            raise InputError(f"no API key has the id {key_id!r}; `msr keys list` shows all")
        return {"revoked": 1}

    report(lambda: _with_keys(data, work), as_json)


async def _with_keys(data: str, work: Any) -> Any:
    from services.deployment.assemble import open_store
    from services.state.api_keys import ApiKeys

    async with open_store(data, settings()) as store:
        return await work(ApiKeys(store.connection))


def _now_ms() -> int:
    return round(1000 * datetime.now(UTC).timestamp())


def _expiry(now_ms: int, days: float | None) -> int | None:
    if days is None:
        return None
    if days <= 0:
        raise InputError(f"--expires-days {days}: give a number above 0, or leave it out")
    return now_ms + round(days * _DAY_MS)


def _facts(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.key_id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_ms": key.created_ms,
        "expires_ms": key.expires_ms,
        "expired": key.has_expired(_now_ms()),
        "rate_per_second": key.rate_per_second,
        "burst": key.burst,
    }


def _line(key: ApiKey) -> str:
    rate = f"{key.rate_per_second:g}/s, {key.burst} at once" if key.rate_per_second else "any rate"
    if key.expires_ms is None:
        life = "does not expire"
    else:
        life = f"{'expired' if key.has_expired(_now_ms()) else 'expires'} {_date(key.expires_ms)}"
    scopes = ",".join(sorted(key.scopes))
    return f"{key.key_id}  {scopes}  {rate}  created {_date(key.created_ms)}, {life}  {key.name}"


def _date(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
