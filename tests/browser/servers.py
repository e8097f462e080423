"""What the console is shown: the demo model in a program of its own, and scripted worlds."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from model_training import fit_ranker
from model_training.demo.world import IMAGE_SIZE, write_files
from services.api.main import serve
from services.batch import build_preferences, prepare_catalogue, summarize_images
from services.batch.readers.plain import Plain
from services.deployment import choose_engine
from services.listening import wait_until_listening
from services.settings import Settings
from services.state.store import Store
from tests.api.builders import an_app
from tests.processes import PATIENCE_SECONDS

NUM_ITEMS, NUM_USERS = 60, 30
Populate = Callable[[Store], Awaitable[None]]


def prepare_demo(folder: Path, *, num_items: int = NUM_ITEMS, num_users: int = NUM_USERS) -> str:
    """A demo world by the steps of `msr demo`, only smaller; its data folder."""
    write_files(folder / "world", num_items=num_items, num_users=num_users)
    # Playwright keeps an event loop in this thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _prepare(folder)).result()


async def _prepare(folder: Path) -> str:
    data = str(folder / "data")
    choice = choose_engine(data, Settings(), kind="local", model=None, adapter=None)
    source = Plain(folder / "world")
    await asyncio.to_thread(prepare_catalogue.run, source, data=data, image_size=IMAGE_SIZE)
    engine = await choice.open()
    try:
        await summarize_images.run(data, engine)
        await build_preferences.run(data, engine, cut="none")
    finally:
        await engine.close()
    await fit_ranker.ensure(data, serving=engine.identity)
    return data


@contextmanager
def the_demo(data: str, log: Path) -> Iterator[str]:
    """`msr serve` over it, with the demo model, an embedded Redis and a worker; its URL."""
    environment = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", "serve", "--data", data, "--port", "0"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            assert process.stdout is not None
            url = wait_until_listening(process.stdout)
            assert url is not None, log.read_text()
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(PATIENCE_SECONDS)
    assert status == 0, log.read_text()


@contextmanager
def a_world(
    redis_url: str, populate: Populate | None = None, build: Callable[[Store], FastAPI] = an_app
) -> Iterator[str]:
    """What `build` makes, in a thread, over an emptied Redis and then `populate`; its URL."""
    told: dict[str, Any] = {}
    listening = threading.Event()

    async def run() -> None:
        told["loop"], told["stop"] = asyncio.get_running_loop(), asyncio.Event()
        store = await Store.open(redis_url)
        try:
            await store.connection.call("FLUSHALL")
            if populate is not None:
                await populate(store)
            await serve(
                build(store),
                host="127.0.0.1",
                port=0,
                on_listening=lambda url: (told.update(url=url), listening.set()),
                stop=told["stop"],
            )
        finally:
            await store.close()

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            told["error"] = error
        finally:
            listening.set()

    thread = threading.Thread(target=work)
    thread.start()
    listening.wait()
    try:
        if "url" in told:
            yield told["url"]
    finally:
        if thread.is_alive():
            told["loop"].call_soon_threadsafe(told["stop"].set)
        thread.join()
    if "error" in told:
        raise told["error"]
