"""A small world behind the API: six items, cheap rankers over them, and an engine on a script."""

import asyncio
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
from fastapi import FastAPI

from services.api.adapters.active_adapters import LiveAdapters
from services.api.dependencies import Dependencies
from services.api.http.auth import AccessRules
from services.api.limits import Limits
from services.api.main import create_app
from services.api.recommend.ordering import Ordering
from services.core.api_keys import Scope, issue
from services.core.data_folder.text_writers import TextWriters, preference_writer
from services.core.errors import EngineError
from services.core.prompts import GenerationLimits, Messages
from services.core.records import Interaction, Item, ItemId, UserId
from services.core.recurrence import PreferenceState, WrittenBlock
from services.core.scoring import AnswerLogprobs
from services.engines.adapter_folders import AdapterFolders
from services.engines.contract import EngineIdentity
from services.retrieval.cheap_rankers import CheapScores
from services.retrieval.features import FEATURES, MARGIN
from services.retrieval.fusion import Fusion, Ranker
from services.state.adapter_selection import AdapterSelections
from services.state.api_keys import ApiKeys
from services.state.records import ItemRecord, UpdatedPreference
from services.state.user_store import Store

IDENTITY = EngineIdentity(model="scripted", adapter="scripted-adapter")
# Keys are asked for, and read with every request.
WITH_KEYS = AccessRules(require_keys=True, cache_seconds=0)
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
        identity: EngineIdentity = IDENTITY,
    ) -> None:
        self.identity = identity
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


class ScriptedRankers:
    """Cheap rankers of `ITEM_IDS`: i1 is the most trending, i6 the least.

    After a history that holds i1 the next item is `pointed_at`, in this order; then the others.
    """

    def __init__(
        self,
        pointed_at: Sequence[str] = ("i6", "i5"),
        *,
        fingerprint: str = "rankers-of-tests",
        definition: str = "definition-of-tests",
    ) -> None:
        self.fingerprint = fingerprint
        self.definition = definition
        self.num_items = len(ITEM_IDS)
        self.titles_given: dict[str, str] = {}
        self._pointed_at = list(pointed_at)

    def index_of(self, item_id: str) -> int | None:
        return ITEM_IDS.index(ItemId(item_id)) if item_id in ITEM_IDS else None

    def score(
        self, history: Sequence[str], candidates: Sequence[str], titles: Mapping[str, str] = {}
    ) -> list[CheapScores]:
        self.titles_given |= titles
        return [self._scores(history, item_id, "caller") for item_id in candidates]

    def basis(self, history: Sequence[str], titles: Mapping[str, str] = {}) -> str:
        if any(self.index_of(item_id) is not None for item_id in history):
            return "sequential"
        return "titles" if titles else "trending"

    def retrieve(
        self,
        history: Sequence[str],
        *,
        limit: int,
        exclude: Collection[str],
        order: Callable[[np.ndarray], np.ndarray] | None = None,
        titles: Mapping[str, str] = {},
    ) -> list[CheapScores]:
        self.titles_given |= titles
        source = "sequential" if "i1" in history else "trending"
        found = [self._scores(history, each, source) for each in ITEM_IDS if each not in exclude]
        values = np.array([each.values for each in found]).reshape(-1, len(FEATURES))
        keys = values[:, FEATURES.index(source)] if order is None else order(values)
        return [found[row] for row in np.argsort(-keys, kind="stable")[:limit]]

    def _scores(self, history: Sequence[str], item_id: str, source: str) -> CheapScores:
        index = self.index_of(item_id)
        values = dict.fromkeys(FEATURES, 0.0)
        if index is None:
            return CheapScores(ItemId(item_id), "new", tuple(values.values()), 0)
        values["trending"] = float(len(ITEM_IDS) - index)
        values["sequential"] = -math.log(len(ITEM_IDS))
        if "i1" in history:
            ranked = [*self._pointed_at, *(i for i in ITEM_IDS if i not in self._pointed_at)]
            values["sequential"] = -1.0 - ranked.index(item_id)
        return CheapScores(ItemId(item_id), cast(Any, source), tuple(values.values()), 60)


def a_ranker(*, margin_weight: float | None = 1.0, **fields: Any) -> Ranker:
    """Weighs `sequential` by 1 and, unless that is None, the margin by `margin_weight`."""

    def fusion(features: tuple[str, ...], weights: Mapping[str, float]) -> Fusion:
        zeros, ones = (0.0,) * len(features), (1.0,) * len(features)
        coefficients = tuple(weights.get(feature, 0.0) for feature in features)
        return Fusion(features, zeros, ones, coefficients, intercept=0.5)

    with_margin = None
    if margin_weight is not None:
        with_margin = fusion((*FEATURES, MARGIN), {"sequential": 1.0, MARGIN: margin_weight})
    return Ranker(
        **{
            "fingerprint": "ranker-of-tests",
            "retrieval": "definition-of-tests",
            "model": "scripted",
            "adapter": "scripted-adapter",
            "cheap": fusion(FEATURES, {"sequential": 1.0}),
            "with_margin": with_margin,
            **fields,
        }
    )


def an_ordering(
    rankers: ScriptedRankers | None = None,
    ranker: Ranker | None = None,
    identity: EngineIdentity = IDENTITY,
) -> Ordering:
    return Ordering.of(cast(Any, rankers or ScriptedRankers()), ranker, identity)


def a_record(item: Item) -> ItemRecord:
    return ItemRecord(item, item.version, summary="looks good", status="ready")


async def put_catalogue(store: Store, item_ids: Sequence[str] = ITEM_IDS) -> None:
    for item_id in item_ids:
        await store.items.put_item(
            Item(ItemId(item_id), a_title(item_id)), summary=f"looks {item_id}"
        )


async def put_user(
    store: Store,
    user_id: str,
    history: Sequence[str],
    *,
    preference: str = "",
    writer: str = preference_writer(IDENTITY.model).identity,
) -> None:
    """A user with this history, updated to `preference` by `writer` unless that is empty."""
    interactions = [
        Interaction(UserId(user_id), ItemId(item_id), 1000 * (k + 1), f"e{k}")
        for k, item_id in enumerate(history)
    ]
    await store.ingest(interactions)
    record = await store.load_user(UserId(user_id))
    if preference and record is not None:
        ids = record.item_ids
        blocks = tuple(
            WrittenBlock(ids[k : k + 3], f"{preference} {k // 3 + 1}")
            for k in range(0, len(ids) - len(ids) % 3, 3)
        )
        state = PreferenceState(blocks, ids[len(blocks) * 3 :])
        await store.save_preference(
            UpdatedPreference(record, state, preference, record.version, writer)
        )


async def a_token(store: Store, *scopes: Scope, **fields: Any) -> str:
    """A new key's token; with all scopes if none is named."""
    now_ms = fields.pop("now_ms", time.time_ns() // 1_000_000)
    key, token = issue("of a test", scopes or tuple(Scope), now_ms=now_ms, **fields)
    await ApiKeys(store.connection).add(key)
    return token


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def an_app(
    store: Store,
    engine: ScriptedEngine | None = None,
    *,
    rankers: ScriptedRankers | None = None,
    ranker: Ranker | None = None,
    source: Any = None,
    rules: AccessRules | None = None,
    adapters: LiveAdapters | None = None,
    data: str | None = None,
    writers: TextWriters | None = None,
    **limits: Any,
) -> FastAPI:
    engine = engine or ScriptedEngine()
    deps = Dependencies(
        store=store,
        engine=engine,
        ordering=an_ordering(rankers, ranker, engine.identity),
        adapters=adapters or live_adapters(store, engine),
        source=source,
        limits=Limits(**limits),
        rules=rules,
        data=data,
        writers=writers,
    )
    return create_app(deps)


def live_adapters(
    store: Store, engine: Any, folder: str | Path = "no-such-folder", **options: Any
) -> LiveAdapters:
    """Over the adapters that lie in a folder; the engine's own is called `own`."""
    folders = AdapterFolders(folder, {}, model=engine.identity.model)
    given = {"own_name": "own"} | options
    return LiveAdapters(engine, AdapterSelections(store.connection), folders, **given)


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
