"""API keys by command, on an embedded Redis of its own."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from services.cli import app
from services.core.errors import InputError
from services.deployment.assemble import open_store
from services.deployment.settings import Settings
from services.state.api_keys import ApiKeys

READ = ("--scope", "read")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("REDIS_URL", raising=False)
    return str(tmp_path)


def msr(*arguments: str) -> Result:
    finished = CliRunner().invoke(app, ["keys", *arguments], catch_exceptions=False)
    assert finished.exit_code == 0, finished.output
    return finished


def created(data: str, *options: str) -> str:
    given = ("--name", "shop", "--scope", "read", *options)
    return msr("create", "--data", data, *given).stdout.strip()


def listed(data: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(msr("list", "--data", data, "--json").stdout)["keys"]
    return found


def test_a_key_alone_is_printed_and_works(data: str):
    token = created(data, "--scope", "write")

    _, key_id, secret = token.split("_", 2)
    [key] = listed(data)
    assert (key["id"], key["name"], key["scopes"]) == (key_id, "shop", ["read", "write"])
    assert (key["expires_ms"], key["rate_per_second"]) == (None, 0)
    assert secret not in json.dumps(listed(data)) + msr("list", "--data", data).output


def test_expiry_and_rate_belong_to_the_key(data: str):
    created(data, "--expires-days", "30", "--rate", "50", "--burst", "100")

    [key] = listed(data)
    assert key["expires_ms"] - key["created_ms"] == 30 * 24 * 3600 * 1000
    assert (key["rate_per_second"], key["burst"], key["expired"]) == (50, 100, False)
    assert "50/s, 100 at once" in msr("list", "--data", data).stdout


def test_a_revoked_key_is_gone_and_the_others_stay(data: str):
    kept, gone = created(data), created(data)

    told = msr("revoke", gone.split("_")[1], "--data", data, "--json").stdout

    assert json.loads(told)["revoked"] == 1
    assert [key["id"] for key in listed(data)] == [kept.split("_")[1]]


def test_a_key_that_is_not_there_cannot_be_revoked(data: str):
    with pytest.raises(InputError, match="msr keys list"):
        msr("revoke", "0a1b", "--data", data)


@pytest.mark.parametrize(
    "options", [["--scope", "root"], [*READ, "--rate", "-1"], [*READ, "--expires-days", "0"], []]
)
def test_a_key_without_sense_is_not_made(data: str, options: list[str]):
    given = ["keys", "create", "--data", data, "--name", "shop", *options]

    assert CliRunner().invoke(app, given).exit_code != 0
    assert listed(data) == []


async def test_a_servers_store_sees_what_the_command_made(data: str):
    _, key_id, secret = (await asyncio.to_thread(created, data)).split("_", 2)
    async with open_store(data, Settings()) as store:
        found = await ApiKeys(store.connection).load(key_id)

    assert found is not None
    assert found.is_opened_by(secret)
