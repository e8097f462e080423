"""Dead letters and a user's data, by command, on an embedded Redis of its own."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli import app
from services.core.records import UserId
from services.deployment.assemble import open_store
from services.deployment.settings import Settings
from services.state.work_queue import WorkQueue
from tests.builders import an_interaction, put_items

USERS = ("u1", "u2")


@pytest.fixture
async def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A data folder whose Redis has put aside the updates of two users."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    async with open_store(str(tmp_path), Settings()) as store:
        work_queue = WorkQueue(store, consumer="test")
        await work_queue.create_groups()
        await put_items(store, ["i1"])
        await store.ingest([an_interaction(user_id=user) for user in USERS])
        for delivery in await work_queue.read("users", count=9, block_seconds=0.01):
            await work_queue.dead_letter([delivery], "cannot be written")
    return str(tmp_path)


def msr(*arguments: str) -> str:
    finished = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert finished.exit_code == 0, finished.output
    return finished.stdout


def letters(data: str) -> list[str]:
    told = json.loads(msr("dead-letters", "list", "--data", data, "--json"))
    return sorted(each["user_id"] for each in told["dead_letters"])


def test_dead_letters_are_listed_with_their_reasons(data: str):
    shown = msr("dead-letters", "list", "--data", data)

    assert shown.count("cannot be written") == 2
    assert "2 dead letter(s)" in shown


def test_one_users_dead_letter_is_retried_and_the_other_stays(data: str):
    told = msr("dead-letters", "retry", "--data", data, "--user", "u1", "--json")

    assert json.loads(told)["retried"] == 1
    assert letters(data) == ["u2"]


def test_dead_letters_are_dropped(data: str):
    assert json.loads(msr("dead-letters", "drop", "--data", data, "--json"))["dropped"] == 2
    assert letters(data) == []


def test_a_user_is_exported_as_json(data: str):
    held = json.loads(msr("export-user", "u1", "--data", data))

    assert (held["user_id"], held["dead_letters"]) == (UserId("u1"), 1)
    assert [each["item_id"] for each in held["history"]] == ["i1"]
