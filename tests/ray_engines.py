"""An engine for Ray workers that says in files what it did, since they are other processes.

In a folder of the test each node has a file with the texts that it was asked for.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from services.core.prompts import GenerationLimits, Messages
from services.core.scoring import AnswerLogprobs
from services.engines.contract import Engine, EngineIdentity
from services.sharding.ray_workers import RayWorkers
from tests.artifact_builders import EchoEngine

Start = Callable[..., Awaitable[RayWorkers]]


class NotingEngine:
    """Another engine behind a note of each prompt.

    Answers once `num_nodes` nodes have been asked, lest one does all before another has come up.
    The first one that is asked about `fatal` has its process killed.
    """

    def __init__(self, engine: Engine, notes: Path, *, num_nodes: int = 1, fatal: str = "") -> None:
        self.engine = engine
        self.notes = notes
        self.num_nodes = num_nodes
        self.fatal = fatal

    @property
    def identity(self) -> EngineIdentity:
        return self.engine.identity

    @property
    def num_shortened(self) -> int:
        return self.engine.num_shortened

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        await self.note(messages[0].text)
        return await self.engine.generate(messages, limits)

    async def score(self, messages: Messages) -> AnswerLogprobs:
        await self.note(messages[0].text)
        return await self.engine.score(messages)

    async def close(self) -> None:
        await self.engine.close()

    async def note(self, text: str) -> None:
        with (self.notes / ray.get_runtime_context().get_node_id()).open("a") as file:
            file.write(text.replace("\n", " ") + "\n")
        if self.fatal and self.fatal in text and not (self.notes / "killed.txt").exists():
            (self.notes / "killed.txt").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        while len(noted(self.notes)) < self.num_nodes:  # noqa: ASYNC110  # another process writes
            await asyncio.sleep(0.01)


def noted(notes: Path) -> dict[str, list[str]]:
    """What each node was asked for."""
    return {path.name: path.read_text().splitlines() for path in notes.iterdir() if not path.suffix}


@pytest.fixture
async def start_workers(ray_address: str) -> AsyncIterator[Start]:
    """Starts workers of the cluster by an opener; of the echo engine, if nothing else is said."""
    started = []

    async def start(open_engine: Any, **options: Any) -> RayWorkers:
        options = {"address": ray_address, "uses_gpu": True, **options}
        identity = options.pop("identity", EchoEngine().identity)
        workers = await RayWorkers.start(open_engine, identity, **options)
        started.append(workers)
        return workers

    yield start
    for workers in started:
        await workers.close()
