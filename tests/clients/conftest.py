"""Servers in threads, for clients that block: the real API, and one that follows a script."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from services.api.main import serve
from services.core.data_folder.personas import Persona, write_personas
from services.state.user_store import Store
from tests.api.builders import an_app, put_catalogue, put_user
from tests.clients.serving import ScriptedServer, scripted, served


@pytest.fixture(scope="module")
def base_url(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serves the catalogue of `tests.api.builders` and the user u1, who took i1, a persona."""
    data = str(tmp_path_factory.mktemp("data"))
    write_personas(data, [Persona(user_id="u1", name="The first", about="Took one item.")])

    async def run(on_listening: Callable[[str], None], stop: asyncio.Event) -> None:
        store = await Store.open(redis_url)
        await store.connection.call("FLUSHALL")
        await put_catalogue(store)
        await put_user(store, "u1", ["i1"], preference="likes i1")
        app = an_app(store, data=data)
        await serve(app, host="127.0.0.1", port=0, on_listening=on_listening, stop=stop)
        await store.close()

    with served(run) as url:
        yield url


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    """Replies what a test has it `play`."""
    with scripted() as server:
        yield server
