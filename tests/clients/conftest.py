"""A real API server in a thread, for clients that block."""

import asyncio
import queue
import threading
from collections.abc import Iterator

import pytest

from services.api.main import serve
from services.state.store import Store
from tests.api.builders import an_app, put_catalogue, put_user


@pytest.fixture(scope="module")
def base_url(redis_url: str) -> Iterator[str]:
    """Serves the catalogue of `tests.api.builders` and the user u1, who took i1."""
    listening: queue.Queue[str] = queue.Queue()
    controls: queue.Queue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def run() -> None:
        stop = asyncio.Event()
        controls.put((asyncio.get_running_loop(), stop))
        store = await Store.open(redis_url)
        await store.connection.call("FLUSHALL")
        await put_catalogue(store)
        await put_user(store, "u1", ["i1"], preference="likes i1")
        await serve(an_app(store), host="127.0.0.1", port=0, on_listening=listening.put, stop=stop)
        await store.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    loop, stop = controls.get(timeout=30)
    yield listening.get(timeout=30)
    loop.call_soon_threadsafe(stop.set)
    thread.join(timeout=30)
