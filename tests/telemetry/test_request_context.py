"""One request id, from the HTTP header through the stream and the worker to the model server."""

import json
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog

from services.core.records import UserId
from services.state import keys
from services.state.user_store import Store
from services.telemetry import request_context
from services.telemetry.request_context import MAX_REQUESTS, Origin
from tests.api.builders import ScriptedEngine, an_app, put_catalogue, put_user, recommend, send
from tests.builders import DigestEngine, an_interaction, put_items, the_user
from tests.engines.conftest import a_prompt
from tests.engines.vllm_client.vllm_servers import FakeServer, an_engine
from tests.worker.running import work_to_the_end

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Logs = list[MutableMapping[str, Any]]


@pytest.fixture
def logs() -> Iterator[Logs]:
    """Events as they are shown, with what is bound to their context."""
    caught = structlog.testing.LogCapture()
    before = structlog.get_config()["processors"]
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, caught])
    yield caught.entries
    structlog.configure(processors=before)


def logged(logs: Logs, event: str) -> MutableMapping[str, Any]:
    (found,) = [entry for entry in logs if entry["event"] == event]
    return found


async def add_interaction(store: Store, request_id: str, **interaction: Any) -> None:
    body = {"user_id": "u1", "item_id": "i1", **interaction}
    headers = {"X-Request-Id": request_id}
    answer = await send(an_app(store), "POST", "/interactions", body, headers=headers)
    assert answer.status_code == 202, answer.text


async def test_the_log_of_an_update_names_the_requests_whose_interactions_it_covers(
    store: Store, logs: Logs
):
    await put_catalogue(store)
    await add_interaction(store, "from-a-browser")
    await add_interaction(store, "from-an-app", item_id="i2")

    await work_to_the_end(store, DigestEngine())

    assert logged(logs, "preference_updated")["request_ids"] == ["from-a-browser", "from-an-app"]


async def test_a_request_whose_interactions_an_earlier_update_took_along_is_named_too(
    store: Store, logs: Logs
):
    await put_items(store, ["i1"])
    for number in range(5):
        await store.ingest([an_interaction(at=number)], origin=f"request-{number}")

    await work_to_the_end(store, DigestEngine())

    by_event = [(entry["event"], entry.get("request_ids", [])) for entry in logs]
    updated = {event for event, named in by_event if named}
    assert updated == {"preference_updated", "update_not_needed"}
    named = [request_id for _, ids in by_event for request_id in ids]
    assert named == [f"request-{number}" for number in range(5)]


def test_of_many_requests_the_newest_are_named():
    origins = [Origin(f"request-{number}") for number in range(MAX_REQUESTS + 3)]

    with request_context.working_for(origins) as newest:
        assert newest == tuple(origins[3:])
        assert request_context.current_request_id() == f"request-{MAX_REQUESTS + 2}"


async def test_a_stream_record_of_an_older_version_is_handled_too(store: Store, logs: Logs):
    await put_items(store, ["i1"])
    await store.append_history([an_interaction("i1")])
    stream = keys.events(keys.partition_of("u1"))
    await store.connection.call("XADD", stream, "*", "user_id", "u1", "version", 1)

    await work_to_the_end(store, DigestEngine())

    assert (await the_user(store)).preference_version == 1
    assert "request_ids" not in logged(logs, "preference_updated")


async def test_the_summary_of_a_new_item_names_the_request_that_put_it(store: Store, logs: Logs):
    body = {"item_id": "new", "title": "a new item"}
    headers = {"X-Request-Id": "from-the-shop"}
    await send(an_app(store), "PUT", "/items", body, headers=headers)

    await work_to_the_end(store, DigestEngine())

    assert logged(logs, "item_summarized")["request_ids"] == ["from-the-shop"]


async def test_a_model_server_gets_the_request_with_an_id_of_its_own_for_each_prompt():
    server = FakeServer()
    engine = await an_engine(server)
    with request_context.serving("from-a-browser"):
        for _ in range(2):
            await engine.score(a_prompt())
    await engine.score(a_prompt())

    first, second = (headers["X-Request-Id"] for headers in server.headers[:2])
    assert first.rpartition("-")[0] == second.rpartition("-")[0] == "from-a-browser"
    assert first != second
    assert "X-Request-Id" not in server.headers[2]


@pytest.mark.parametrize("text", ["", "a\nb", "x" * 65, f"a b {TRACEPARENT}", "id 00-ZZ"])
def test_what_nobody_should_have_written_into_a_stream_goes_into_no_log_or_header(text: str):
    assert str(Origin.parse(text)) in ("", "id", "a")


def test_a_stream_record_names_request_and_trace():
    written = Origin("r1", TRACEPARENT)

    assert Origin.parse(str(written)) == written
    assert str(Origin("r1")) == "r1"


async def test_no_log_tells_a_prompt_a_history_or_a_preference(store: Store, logs: Logs):
    await put_catalogue(store)
    await put_user(store, "u1", ["i1", "i2"], preference="likes s3cret things")
    await recommend(an_app(store, ScriptedEngine({"i3": 1.0})), "u1")
    await add_interaction(store, "r1", item_id="i4")
    await work_to_the_end(store, DigestEngine(failing={"title of i4": ValueError("no")}))

    preference = (await the_user(store, UserId("u1"))).preference
    everything = json.dumps(logs, default=str)
    assert logged(logs, "update_given_up")
    for private in ("s3cret", preference, "title of", "looks i", '"i4"', "event-"):
        assert private not in everything, private
