"""What the console is shown: the demo model in a program of its own, and scripted worlds."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from model_training.demo.world import write_files
from services.api.main import serve
from services.deployment import demo_walk
from services.deployment.assemble import choose_engine
from services.deployment.settings import Settings
from services.state.user_store import Store
from tests.api.builders import an_app
from tests.processes import program

NUM_ITEMS, NUM_USERS = 60, 30
Populate = Callable[[Store], Awaitable[None]]


def prepare_demo(folder: Path, *, num_items: int = NUM_ITEMS, num_users: int = NUM_USERS) -> str:
    """What `msr demo` prepares, only of a smaller world; its data folder."""
    data = str(folder / "data")
    write_files(Path(data) / "demo-world", num_items=num_items, num_users=num_users)
    choice = choose_engine(data, Settings(), kind="local", model=None, adapter=None)
    # Playwright keeps an event loop in this thread.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, demo_walk.prepare(data, choice)).result()
    return data


def the_demo(data: str, log: Path) -> AbstractContextManager[str]:
    """`msr serve` over it, with the demo model, an embedded Redis and a worker; its URL."""
    environment = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    return program(log, environment, "serve", "--data", data, "--port", "0")


@contextmanager
def a_world(
    redis_url: str, populate: Populate | None = None, build: Callable[[Store], FastAPI] = an_app
) -> Iterator[str]:
    """What `build` makes, in a thread, over an emptied Redis and then `populate`; its URL."""
    shared: dict[str, Any] = {}
    listening = threading.Event()

    async def run() -> None:
        shared["loop"], shared["stop"] = asyncio.get_running_loop(), asyncio.Event()
        store = await Store.open(redis_url)
        try:
            await store.connection.call("FLUSHALL")
            if populate is not None:
                await populate(store)
            await serve(
                build(store),
                host="127.0.0.1",
                port=0,
                on_listening=lambda url: (shared.update(url=url), listening.set()),
                stop=shared["stop"],
            )
        finally:
            await store.close()

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            shared["error"] = error
        finally:
            listening.set()

    thread = threading.Thread(target=work)
    thread.start()
    listening.wait()
    try:
        if "url" in shared:
            yield shared["url"]
    finally:
        if thread.is_alive():
            shared["loop"].call_soon_threadsafe(shared["stop"].set)
        thread.join()
    if "error" in shared:
        raise shared["error"]
