"""New rankers are used from one request to the next; unusable ones are refused and reported."""

import asyncio
from typing import Any

import httpx
import pytest

from services.api.main import serve
from services.api.recommend.ordering import Ordering
from services.api.recommend.ordering_reload import Fingerprints
from services.core.errors import ArtifactMismatch, ArtifactMissing
from services.state.user_store import Store
from tests.api.builders import (
    ScriptedEngine,
    ScriptedRankers,
    an_app,
    an_ordering,
    ids_of,
    put_user,
    recommend,
    send,
)


class FakeDataFolder:
    """Stands for a data folder where steps publish: an ordering, or why there is none."""

    def __init__(self) -> None:
        self.found: Ordering | Exception = an_ordering()
        self.name = "rankers-of-tests"
        self.num_loads = 0

    def publish(self, name: str, found: Ordering | Exception | None = None) -> None:
        self.name = name
        self.found = found or an_ordering(ScriptedRankers(["i2", "i3"], fingerprint=name))

    def fingerprints(self) -> Fingerprints:
        return Fingerprints(self.name, "")

    def load(self) -> Ordering:
        self.num_loads += 1
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


async def look(app: Any) -> None:
    await app.state.deps.live.look()


@pytest.fixture
async def user(store: Store) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")


@pytest.mark.usefixtures("user")
async def test_the_next_request_is_ranked_by_what_was_published(store: Store) -> None:
    folder = FakeDataFolder()
    app = an_app(store, source=folder)
    folder.publish("newer")
    assert ids_of(await recommend(app, mode="cheap", k=2)) == ["i6", "i5"]
    await look(app)
    assert ids_of(await recommend(app, mode="cheap", k=2)) == ["i2", "i3"]
    assert (await send(app, "GET", "/version")).json()["retrieval"] == "newer"
    metrics = (await send(app, "GET", "/metrics")).text
    assert 'msr_ordering_in_use{artifact="retrieval",fingerprint="newer"} 1.0' in metrics
    assert 'msr_ordering_reloads_total{outcome="loaded"} 1.0' in metrics


async def test_what_is_in_use_is_not_loaded_again(store: Store) -> None:
    folder = FakeDataFolder()
    await look(an_app(store, source=folder))
    assert folder.num_loads == 0


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("error", [ArtifactMismatch("weighs other features"), KeyError("era")])
async def test_what_cannot_serve_is_refused_once_and_the_old_serves_on(
    store: Store, error: Exception
) -> None:
    folder = FakeDataFolder()
    app = an_app(store, source=folder)
    folder.publish("broken", error)
    await look(app)
    await look(app)
    assert folder.num_loads == 1
    assert ids_of(await recommend(app, mode="cheap", k=2)) == ["i6", "i5"]
    ready = (await send(app, "GET", "/health/ready")).json()
    assert (ready["status"], ready["components"]["artifacts"]["state"]) == ("ok", "degraded")
    metrics = (await send(app, "GET", "/metrics")).text
    assert 'msr_ordering_reloads_total{outcome="refused"} 1.0' in metrics


async def test_what_the_disk_does_not_give_is_reported_and_tried_again(store: Store) -> None:
    folder = FakeDataFolder()
    app = an_app(store, source=folder)
    folder.publish("newer", OSError("connection reset by peer"))
    await look(app)
    ready = (await send(app, "GET", "/health/ready")).json()
    assert "newer ones refused (OSError)" in ready["components"]["artifacts"]["detail"]
    folder.publish("newer")
    await look(app)
    assert (await send(app, "GET", "/version")).json()["retrieval"] == "newer"


async def test_what_replaces_a_refused_artifact_is_taken_up(store: Store) -> None:
    folder = FakeDataFolder()
    app = an_app(store, source=folder)
    folder.publish("broken", ArtifactMismatch("no"))
    await look(app)
    folder.publish("mended")
    await look(app)
    ready = (await send(app, "GET", "/health/ready")).json()
    assert ready["components"]["artifacts"] == {"state": "ok", "detail": "retrieval mended"}


async def test_files_that_give_way_while_they_are_read_are_looked_for_again(store: Store) -> None:
    folder = FakeDataFolder()
    app = an_app(store, source=folder)
    folder.publish("newer", ArtifactMissing("a part is gone"))
    await look(app)
    folder.publish("newer")
    await look(app)
    assert (await send(app, "GET", "/version")).json()["retrieval"] == "newer"


async def test_a_server_under_load_takes_it_up_and_answers_every_request(store: Store) -> None:
    await put_user(store, "u1", ["i1"], preference="likes i1")
    folder, stop = FakeDataFolder(), asyncio.Event()
    app = an_app(store, ScriptedEngine(), source=folder, reload_seconds=0.02)
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(app, host="127.0.0.1", port=0, on_listening=listening.set_result, stop=stop)
    )
    async with httpx.AsyncClient(base_url=await listening, timeout=30) as client:
        statuses, versions = await send_until_taken_up(client, folder)
    stop.set()
    await serving
    assert set(statuses) == {200}
    assert versions == ["first", "second", "third"]


async def send_until_taken_up(
    client: httpx.AsyncClient, folder: FakeDataFolder
) -> tuple[list[int], list[str]]:
    """Statuses of requests that were in flight while three orderings were taken up in turn."""
    statuses: list[int] = []
    seen: list[str] = []
    for name in ("first", "second", "third"):
        folder.publish(name)
        while seen[-1:] != [name]:
            body = {"user_id": "u1", "k": 3}
            answers = await asyncio.gather(
                *(client.post("/recommend", json=body) for _ in range(8))
            )
            statuses += [answer.status_code for answer in answers]
            found = (await client.get("/version")).json()["retrieval"]
            seen += [found] if found == name else []
    return statuses, seen
