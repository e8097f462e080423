"""A drawn catalogue through the real steps, and `msr serve` on it.

The texts are drawn, since the steps that write them are measured elsewhere; all else is what a
deployment has: prepared covers, artifacts, fitted rankers, Redis.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.support.msr_process import serving
from benchmarks.support.served_model import MODEL_NAME, TIMEOUT_SECONDS, ServedModel
from benchmarks.support.synthetic_catalogue import SyntheticTexts, draw_items, write_plain_catalogue
from services.batch import build_preferences, prepare_catalogue, summarize_images
from services.batch.readers.plain import Plain
from services.core.artifacts import Artifact
from services.core.records import Item, ItemId, UserId
from services.core.wire.common import MAX_TIMEOUT_SECONDS
from services.core.wire.recommend import RecommendResponse


@dataclass(frozen=True, slots=True)
class SyntheticService:
    """A running API, a client of it, and what it knows."""

    http: httpx.AsyncClient
    items: Sequence[Item]
    preference_of: dict[UserId, str]

    async def recommend(self, user_id: UserId, num_candidates: int) -> RecommendResponse:
        """Rank the first items by the model alone; RuntimeError if it left one of them out."""
        answer = await self.recommend_in_time(user_id, num_candidates)
        if answer.num_scored != num_candidates:
            raise RuntimeError(
                f"{answer.num_scored} of {num_candidates} candidates were scored: {answer.reason}"
            )
        return answer

    async def recommend_in_time(self, user_id: UserId, num_candidates: int) -> RecommendResponse:
        """The same, with as many as the longest deadline allows on this machine."""
        body = {
            "user_id": user_id,
            "candidates": [item.item_id for item in self.items[:num_candidates]],
            "mode": "mllm",
            "exclude_seen": False,
            "timeout_seconds": MAX_TIMEOUT_SECONDS,
        }
        response = (await self.http.post("/recommend", json=body)).raise_for_status()
        return RecommendResponse.model_validate(response.json())


@contextlib.asynccontextmanager
async def serve_catalogue(
    model: ServedModel, *, num_items: int, num_users: int
) -> AsyncIterator[SyntheticService]:
    """`msr serve` over a drawn catalogue, with scores by `model`; nothing is warm yet."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        await _prepare(data, Path(folder) / "catalogue", model, num_items, num_users)
        engine = ("--engine", "vllm", "--url", model.url, "--model", MODEL_NAME)
        # No worker: nothing else may be in the engine while requests are timed.
        with serving(data, *engine, "--adapter", "none", "--no-worker") as url:
            # The server hangs up after 5 idle seconds: a connection that old is not used again.
            limits = httpx.Limits(max_connections=None, keepalive_expiry=2.0)
            async with httpx.AsyncClient(
                base_url=url, timeout=TIMEOUT_SECONDS, limits=limits
            ) as http:
                yield SyntheticService(http, _items(data), _preferences(data))


async def _prepare(
    data: Path, catalogue: Path, model: ServedModel, num_items: int, num_users: int
) -> None:
    users = [UserId(f"user-{number}") for number in range(num_users)]
    write_plain_catalogue(catalogue, draw_items("served", num_items), users)
    await asyncio.to_thread(
        prepare_catalogue.run, Plain(catalogue), data=str(data), min_user_interactions=1
    )
    texts = SyntheticTexts(model.engine.identity)
    await summarize_images.run(str(data), texts)
    await build_preferences.run(str(data), texts, cut="none")


def _items(data: Path) -> list[Item]:
    rows = Artifact(str(data), "items").read(["item_id", "title", "image"]).to_pylist()
    return [Item(ItemId(row["item_id"]), row["title"], row["image"]) for row in rows]


def _preferences(data: Path) -> dict[UserId, str]:
    rows = Artifact(str(data), "preferences-whole").read(["user_id", "preference"]).to_pylist()
    return {UserId(row["user_id"]): row["preference"] for row in rows}
