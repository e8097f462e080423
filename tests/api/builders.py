"""A small world behind the API: six items, cheap rankers over them, and an engine on a script."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI

from services.api.limits import Limits
from services.api.main import create_app
from services.core.errors import EngineError
from services.core.prompts import GenerationLimits, Messages
from services.core.records import Interaction, Item, ItemId, UserId
from services.core.recurrence import FoldedBlock, PreferenceState
from services.core.scoring import AnswerLogprobs
from services.engines.contract import EngineIdentity
from services.retrieval.neighbors import Neighbors
from services.retrieval.rankers import CheapRankers
from services.state.records import Folded
from services.state.store import Store

ITEM_IDS = [ItemId(f"i{number}") for number in range(1, 7)]


def a_title(item_id: str) -> str:
    return f"title of {item_id}"


class ScriptedEngine:
    """Answers with the margins it is given by item id, 0 else. Items in `stalled` are never
    answered, and a `failure` is raised for those in `failing` (all, if none is named).
    """

    num_shortened = 0

    def __init__(
        self,
        margins: Mapping[str, float] | None = None,
        *,
        stalled: Sequence[str] = (),
        failure: EngineError | None = None,
        failing: Sequence[str] = (),
    ) -> None:
        self.identity = EngineIdentity(model="scripted", adapter="scripted-adapter")
        self.margins = dict(margins or {})
        self.stalled = set(stalled)
        self.failure = failure
        self.failing = set(failing)
        self.asked: list[str] = []
        self.prompts: list[str] = []
        self.cancelled: set[str] = set()
        self.first_asked = asyncio.Event()
        self.two_cancelled = asyncio.Event()

    async def score(self, messages: Messages) -> AnswerLogprobs:
        text = messages[0].text
        item_id = next((i for i in ITEM_IDS if f'"{a_title(i)}"' in text), "")
        self.asked.append(item_id)
        self.first_asked.set()
        self.prompts.append(text)
        if item_id in self.stalled:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.add(item_id)
                if len(self.cancelled) == 2:
                    self.two_cancelled.set()
                raise
        if self.failure is not None and (not self.failing or item_id in self.failing):
            raise self.failure
        return AnswerLogprobs(yes=self.margins.get(item_id, 0.0) - 1.0, no=-1.0)

    async def generate(self, messages: Messages, limits: GenerationLimits) -> str:
        raise AssertionError("the API never writes texts")

    async def close(self) -> None:
        """Nothing is held."""


def some_rankers() -> CheapRankers:
    """Popularity i1 > i2 > ... > i6; whoever took i1 is pointed at i6, then i5."""
    starts = np.array([0, 2, 2, 2, 2, 2, 2], np.int64)
    neighbors = Neighbors(starts, np.array([5, 4], np.int32), np.array([0.8, 0.4], np.float32))
    return CheapRankers(ITEM_IDS, np.array([60, 50, 40, 30, 20, 10]), neighbors, "rankers-of-tests")


async def put_catalogue(store: Store, item_ids: Sequence[str] = ITEM_IDS) -> None:
    for item_id in item_ids:
        await store.put_item(Item(ItemId(item_id), a_title(item_id)), summary=f"looks {item_id}")


async def put_user(
    store: Store, user_id: str, history: Sequence[str], *, preference: str = ""
) -> None:
    """A user with this history, folded to `preference` unless that is empty."""
    interactions = [
        Interaction(UserId(user_id), ItemId(item_id), 1000 * (k + 1), f"e{k}")
        for k, item_id in enumerate(history)
    ]
    await store.ingest(interactions)
    record = await store.load_user(UserId(user_id))
    if preference and record is not None:
        ids = record.item_ids
        blocks = tuple(
            FoldedBlock(ids[k : k + 3], f"{preference} {k // 3 + 1}")
            for k in range(0, len(ids) - len(ids) % 3, 3)
        )
        state = PreferenceState(blocks, ids[len(blocks) * 3 :])
        await store.save_preference(Folded(record, state, preference, record.version, "tests"))


def an_app(store: Store, engine: ScriptedEngine | None = None, **limits: Any) -> FastAPI:
    return create_app(
        store=store,
        engine=engine or ScriptedEngine(),
        rankers=some_rankers(),
        limits=Limits(**limits),
    )


def a_client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://msr.test")


async def recommend(app: FastAPI, user_id: str = "u1", **request: Any) -> dict[str, Any]:
    async with a_client(app) as client:
        response = await client.post("/recommend", json={"user_id": user_id, **request})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def send(
    app: FastAPI, method: str, path: str, body: Any = None, **options: Any
) -> httpx.Response:
    async with a_client(app) as client:
        return await client.request(method, path, json=body, **options)


def ids_of(answer: Mapping[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]
